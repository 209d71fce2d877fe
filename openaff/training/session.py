"""From a configuration to a finished run folder."""

import datetime
import pathlib
import random
import time

import mxnet as mx
import numpy as np
from mxnet.contrib import amp
from tqdm import tqdm

from ..analysis.complexity import count_parameters
from ..data import load_dataset
from ..data.batches import test_batches, training_batches
from ..data.transforms import CROP_PADDING
from ..models import create_model
from ..models.pretrained import load_parameters
from ..utils.errors import UserError
from .checkpoint import LAST, load_checkpoint
from .config import PHOTOS, load_config, to_yaml
from .distillation import Distillation, load_teacher
from .distributed import Workers
from .engine import CrossEntropy, Engine, NonFiniteLoss, Sums, initialize
from .interrupt import Stopped, StopRequest
from .run_folder import Run, refuse_existing
from .schedule import Schedule


def train(config, out, devices):
    """Train as ``config`` says into the new folder ``out``; returns what its result.json says.

    Of several workers the first one writes the folder, and the others return ``None``.

    Parameters
    ----------
    config : Config
        See :func:`~openaff.training.config.load_config`.
    out : path-like
        The run folder, which must not exist.
    devices : list of mx.Context
        See :func:`~openaff.utils.devices.parse_devices`.

    Raises
    ------
    UserError
        Whatever is wrong with data, model or folder, before the folder is made; later, a loss that
        is not finite.
    Stopped
        SIGTERM or SIGINT came; the step was finished and a checkpoint written.
    """
    refuse_existing(out)  # before the data set is read
    session = _Session(config, devices)
    session.workers.any(False)  # all have looked
    session.run = Run(out, to_yaml(config), writes=session.workers.rank == 0)
    session.save()  # so that a crash in the first epoch can be resumed, too
    return session.fit()


def resume(folder, devices, checkpoint=LAST):
    """Go on with a run folder from one of its checkpoints; see :func:`train`.

    The result is bit-equal to that of a run without interruption (on a CPU).

    Raises
    ------
    UserError
        No run folder, a finished run, or a checkpoint that cannot be used.
    """
    folder = pathlib.Path(folder)
    Run.reopen(folder, writes=False)  # before the data set is read
    config = load_config(folder / "config.yaml")
    session = _Session(config, devices, fresh=False)
    session.run = Run.reopen(folder, writes=session.workers.rank == 0)
    session.restore(folder / checkpoint)
    return session.fit()


class _Session:
    """One run: what it trains on, and where in it we are."""

    def __init__(self, config, devices, fresh=True):
        for seed in (random.seed, np.random.seed, mx.random.seed):
            seed(config.seed)
        _check_precision(config, devices)
        self.config = config
        self.devices = devices
        self.workers = Workers(config.kvstore)
        self.dataset = load_dataset(config.data)
        classes = len(self.dataset.class_names)
        self.batch_size = config.data.batch_size * len(devices)  # of this worker
        part = (self.workers.rank, self.workers.count)
        self.batches = training_batches(
            self.dataset, config.data, self.batch_size, config.seed, part
        )
        self.test_batches = test_batches(self.dataset, self.batch_size, config.data.workers, part)
        self.schedule = Schedule(
            config.schedule, config.optimizer.lr, config.epochs, len(self.batches)
        )
        self.net, twin = networks(config, classes, devices)
        if fresh and config.start_from:
            load_parameters(self.net, config.start_from, devices, config.model.name)
        self.engine = Engine(
            self.net,
            twin,
            self.schedule,
            config.optimizer,
            loss=self._loss(classes),
            seed=config.seed,
            precision=config.precision,
            workers=self.workers,
        )
        self._begin(epoch=1)

    def _begin(self, epoch):
        self.epoch, self.batch, self.sums = epoch, 0, Sums()
        self.seconds, self.waited = 0.0, 0.0  # of this epoch's training, and of them without data

    @property
    def images(self):
        """That this epoch has trained on."""
        return self.batch * self.batch_size * self.workers.count

    def _loss(self, classes):
        loss = CrossEntropy(self.config.optimizer.label_smoothing)
        distillation = self.config.distillation
        if distillation.teacher is None:
            return loss
        shape = self.dataset.train.image_shape
        teacher = load_teacher(distillation, classes, shape, self.devices)
        given = {
            key: getattr(distillation, key)
            for key in ("weight", "temperature")
            if getattr(distillation, key) is not None
        }
        return Distillation(loss, teacher, **given)

    def fit(self):
        first = self.workers.rank == 0
        if self.config.data.batch_size == 1 and first:
            print("warning: one image a device and step: batch norms over 1x1 maps give their beta")
        with StopRequest() as stop:
            while self.epoch <= self.config.epochs:
                self._train_epoch(stop)
                # Before the evaluation, which may take long, or fail on an unreadable image.
                self.save()
                self._stop_if_asked(stop)
                row = self._evaluate()
                self.run.log(row)
                if first:
                    print(self._line(row), flush=True)
                best = max(self.run.rows, key=lambda each: each["test_accuracy"])
                if best is row:
                    self.run.save("best", self.net)
                self._begin(self.epoch + 1)
        self.run.save("last", self.net)
        result = self._result()
        self.run.finish(result, self.dataset.class_names)
        return result if first else None

    def _train_epoch(self, stop):
        mixing = self.epoch <= self.config.epochs - (self.config.data.mixup_off_epochs or 0)
        every = self.config.checkpoint_steps
        self._since, self._waited_before = time.perf_counter(), 0.0
        images_a_step = self.batch_size * self.workers.count
        with tqdm(
            total=len(self.batches) * images_a_step,
            initial=self.batch * images_a_step,
            unit="img",
            desc=self._title(),
            leave=False,
            disable=None if self.workers.rank == 0 else True,
        ) as bar:
            for images, labels in self.batches.epoch(self.epoch, self.batch, mixing):
                try:
                    self.engine.train_step(images, labels, self.sums)
                except NonFiniteLoss:
                    raise self._not_finite() from None
                self.batch += 1
                bar.set_postfix(loss=f"{self.sums.mean_loss():.3f}", refresh=False)
                bar.update(images_a_step)
                if self.batch < len(self.batches):
                    if every and self.engine.step % every == 0:
                        self._clock()
                        self.save()
                    self._stop_if_asked(stop)
        mx.nd.waitall()  # the last update, too, belongs to the time
        self._clock()

    def _stop_if_asked(self, stop):
        if self.workers.any(stop.signal):  # all workers stop after the same step
            self._clock()
            self.save()
            raise Stopped(
                f"{stop.signal or 'another worker'}: stopped after step {self.engine.step}"
            )

    def _clock(self):
        """Add what has passed to the epoch's seconds, and to those of them spent on waiting."""
        now = time.perf_counter()
        self.seconds += now - self._since
        self.waited += self.batches.waited - self._waited_before
        self._since, self._waited_before = now, self.batches.waited

    def _evaluate(self):
        """Evaluate what was just saved, and return the epoch's row of metrics."""
        start = time.perf_counter()
        try:
            trained = self.sums.means(self.workers)
            tested = self.engine.evaluate(self.test_batches.epoch())
        except NonFiniteLoss:
            raise self._not_finite() from None
        return {
            "epoch": self.epoch,
            "lr": self.schedule(self.engine.step - 1),
            "train_loss": trained["loss"],
            "train_accuracy": trained["accuracy"],
            "test_loss": tested["loss"],
            "test_accuracy": tested["accuracy"],
            "images_per_second": self.images / self.seconds,
            "waited_for_data": self.waited / self.seconds,
            "evaluation_seconds": time.perf_counter() - start,
        }

    def _line(self, row):
        epochs = self.config.epochs - self.epoch
        left = epochs * (self.seconds + row["evaluation_seconds"])
        return (
            "{}: lr {lr:.4f}, train loss {train_loss:.3f}, accuracy {train_accuracy:.2%}; "
            "test loss {test_loss:.3f}, accuracy {test_accuracy:.2%}; "
            "{images_per_second:.0f} images/s, {waited_for_data:.0%} of the time waiting for "
            "data; {} left".format(self._title(), datetime.timedelta(seconds=round(left)), **row)
        )

    def save(self):
        """Write a checkpoint of this very moment."""
        try:
            sums = self.sums.state(self.workers)
        except NonFiniteLoss:
            raise self._not_finite() from None
        self.engine.share_statistics()
        state = {
            "step": self.engine.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": sums,
            "seconds": self.seconds,
            "waited": self.waited,
            "rows": self.run.rows,
            "devices": len(self.devices),
            "workers": self.workers.count,
            "loss_scaling": self.engine.scaling(),
        }
        self.run.checkpoint(self.net, self.engine.trainer, state)

    def restore(self, path):
        """Go back to the moment of a checkpoint."""
        state = load_checkpoint(
            path, self.net, self.engine.trainer, self.devices, self.workers.count
        )
        self.engine.step = state["step"]
        self.engine.restore_scaling(state["loss_scaling"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.seconds, self.waited = state["seconds"], state["waited"]
        self.sums = Sums(**state["sums"]) if self.workers.rank == 0 else Sums()  # of all workers
        self.run.rewind(state["rows"])

    def _title(self):
        return f"epoch {self.epoch}/{self.config.epochs}"

    def _not_finite(self):
        step = self.engine.step - 1
        last = self.run.path / LAST
        return UserError(
            f"the loss is not finite at step {step} (learning rate {self.schedule(step):g}); the "
            f"last good checkpoint is {last if last.exists() else 'none'}: take a smaller "
            "optimizer.lr, a longer schedule.warmup, or optimizer.clip_gradient"
        )

    def _result(self):
        """What result.json says."""
        trainable, total = count_parameters(self.net)
        rows = self.run.rows
        best = max(rows, key=lambda row: row["test_accuracy"])
        return {
            "model": self.config.model.name,
            "options": self.config.model.options,
            "parameters": total,
            "trainable_parameters": trainable,
            "dataset": self.dataset.name,
            "classes": len(self.dataset.class_names),
            "input_shape": list(self.dataset.train.image_shape),
            "mean": list(self.dataset.mean),
            "std": list(self.dataset.std),
            "labels": self.dataset.labels,
            "split": self.dataset.split,
            "protocol": protocol(self.config, self.batch_size * self.workers.count),
            "seed": self.config.seed,
            "devices": list(map(str, self.devices)),
            "workers": self.workers.count,
            "best_accuracy": best["test_accuracy"],
            "best_epoch": best["epoch"],
            "best_selection": "chosen on the test split",
            "last_accuracy": rows[-1]["test_accuracy"],
            "images_per_second": float(np.median([row["images_per_second"] for row in rows])),
        }


def protocol(config, batch_size):
    """The recipe in one line, for result files."""
    schedule, optimizer, data = config.schedule, config.optimizer, config.data
    decay = schedule.name
    if schedule.name == "step":
        decay += " at {schedule.unit} {}".format(
            ", ".join(map("{:g}".format, schedule.milestones)), schedule=schedule
        )
    parts = [
        f"{config.epochs} epochs",
        f"NAG, lr {optimizer.lr:g}, momentum {optimizer.momentum:g}, "
        f"weight decay {optimizer.weight_decay:g}"
        + (" (not on bias, gamma, beta)" if optimizer.no_wd else ""),
        decay,
        f"{schedule.warmup:g} warm-up {schedule.unit}",
        f"batch {batch_size}",
        "random resized crop"
        if data.name in PHOTOS
        else f"crop padding {CROP_PADDING if data.crop_padding is None else data.crop_padding}",
        "flip" if data.flip else "no flip",
    ]
    if data.jitter:
        parts.append(f"colour jitter {data.jitter:g}")
    if data.pca_noise:
        parts.append(f"PCA noise {data.pca_noise:g}")
    if data.autoaugment:
        parts.append(f"AutoAugment {data.autoaugment}")
    if data.mixup_alpha:
        off = data.mixup_off_epochs or 0
        parts.append(f"mixup {data.mixup_alpha:g}, off in the last {off} epochs")
    if optimizer.label_smoothing:
        parts.append(f"label smoothing {optimizer.label_smoothing:g}")
    if optimizer.clip_gradient:
        parts.append(f"gradients clipped at {optimizer.clip_gradient:g}")
    if config.distillation.teacher:
        parts.append(f"distilled from {config.distillation.teacher}")
    if config.sync_batch_norm:
        parts.append("synchronised batch norms")
    if config.start_from:
        parts.append("continued from " + "/".join(pathlib.Path(config.start_from).parts[-2:]))
    return "; ".join(parts + [config.initializer, config.precision])


def networks(config, classes, devices):
    """The network to train and its twin for evaluations, initialised alike on all devices."""
    options = dict(config.model.options)
    if config.sync_batch_norm:
        if len(devices) == 1:
            raise UserError("sync_batch_norm has no effect on one device: name several, --devices")
        if devices[0].device_type == "cpu":
            raise UserError(
                "sync_batch_norm needs GPUs: MXNet's operator waits for ever on CPU devices"
            )
        options["norm_layer"] = mx.gluon.contrib.nn.SyncBatchNorm
        norm_kwargs = options.get("norm_kwargs") or {}
        options["norm_kwargs"] = {**norm_kwargs, "num_devices": len(devices)}
    dtype = "float16" if config.precision == "float16" else "float32"
    if config.precision == "amp":
        amp.init()
    twin = create_model(config.model.name, num_classes=classes, **config.model.options)
    net = create_model(config.model.name, num_classes=classes, **options)
    for each in (twin, net):
        initialize(each, devices, config.initializer, dtype)
    return net, twin


def _check_precision(config, devices):
    if config.precision != "float32" and devices[0].device_type == "cpu":
        raise UserError(
            f"precision={config.precision} needs GPUs: MXNet has no float16 convolutions for the "
            "CPU; take --devices gpu:0 or precision=float32"
        )
