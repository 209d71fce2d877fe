"""From a configuration to a finished run folder."""

import dataclasses
import datetime
import math
import pathlib
import random
import time

import mxnet as mx
import numpy as np
from mxnet.contrib import amp

from ..analysis.complexity import count_parameters
from ..data import DATASETS, load_dataset
from ..data.batches import test_batches, training_batches
from ..data.transforms import describe_augmentation
from ..models import create_model
from ..models.factory import fusion_of
from ..models.pretrained import PUBLISHED
from ..tasks import NonFiniteLoss, load_task
from ..utils.errors import UserError
from ..utils.files import refuse_existing
from ..utils.interrupt import Stopped, StopRequest
from ..utils.json_files import check_kind
from ..utils.program import command
from ..utils.progress import progress_bar
from ..utils.provenance import processor
from .checkpoint import LAST, load_checkpoint
from .config import changed_config, refuse_differences, to_yaml
from .distillation import Distillation, load_teacher
from .distributed import Workers
from .engine import Engine, initialize
from .finetuning import describe_finetuning, describe_start, freeze, load_start, scale_rates
from .report import describe_devices, describe_model
from .run_folder import Run
from .schedule import Schedule


def _mxnet(config):
    return Engine


def train(config, out, devices, engine=_mxnet):
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
    engine : callable
        ``engine(config)`` gives what makes the engine, by default
        :class:`~openaff.training.engine.Engine`.

    Raises
    ------
    UserError
        Whatever is wrong with configuration, data, model or folder, before the folder is made;
        later, a loss that is not finite.
    Stopped
        SIGTERM or SIGINT came; the step was finished and a checkpoint written.
    """
    config.check()
    refuse_existing(out, "the run folder ")  # before the data set is read
    session = _Session(config, devices, engine)
    with StopRequest() as stop:  # before anyone can see the folder, and stop the run
        session.workers.any(False)  # all have looked
        with Run.new(
            out, to_yaml(config), session.task, session.workers.rank == 0, config.imports
        ) as session.run:
            session.save()  # so that a crash in the first epoch can be resumed, too
        try:
            session.introduce()
            return session.fit(stop)
        finally:
            session.run.release()


def resume(folder, devices, checkpoint=LAST, engine=_mxnet, overrides=()):
    """Go on with a run folder from one of its checkpoints; see :func:`train`.

    The result is bit-equal to that of a run without interruption (on a CPU).

    Parameters
    ----------
    folder, devices, engine
        See :func:`train`.
    checkpoint : str
        A file of the folder.
    overrides : sequence of str
        ``"epochs=20"`` and so on: settings to change, of
        :data:`~openaff.training.config.CHANGEABLE`.  With more epochs a finished run goes on, too.

    Raises
    ------
    UserError
        No run folder, a finished run, a checkpoint that cannot be used, or a ``config.yaml`` that
        differs from the checkpoint's configuration.
    """
    folder = pathlib.Path(folder)
    Run.reopen(folder, writes=False, epochs=math.inf)  # is it a run at all?
    config, changed = changed_config(folder, overrides)
    epochs = config.epochs if "epochs" in changed else None
    Run.reopen(folder, writes=False, epochs=epochs)  # before the data set is read
    session = _Session(config, devices, engine, fresh=False)
    session.run = Run.reopen(folder, session.task, session.workers.rank == 0, epochs)
    try:
        session.restore(folder / checkpoint, changed)
        session.introduce()
        if changed:
            session.run.change(to_yaml(config))
            session.save()  # a checkpoint holds its configuration
        with StopRequest() as stop:
            return session.fit(stop)
    finally:
        session.run.release()


class _Session:
    """One run: what it trains on, and where in it we are."""

    def __init__(self, config, devices, engine, fresh=True):
        for seed in (random.seed, np.random.seed, mx.random.seed):
            seed(config.seed)
        make_engine = engine(config)
        _check_precision(config, devices)
        self.config = config
        self.devices = devices
        self.workers = Workers(config.kvstore)
        self.dataset = load_dataset(config.data)
        self.task = load_task(self.dataset, config.loss)
        self.batch_size = config.data.batch_size * len(devices)  # of this worker
        shard = (self.workers.rank, self.workers.count)
        self.batches = training_batches(
            self.dataset, config.data, self.batch_size, config.seed, shard
        )
        self.test_batches = test_batches(self.dataset, self.batch_size, config.data.workers, shard)
        self.schedule = Schedule(
            config.schedule, config.optimizer.lr, config.epochs, len(self.batches)
        )
        self.net, self.evaluation_net = networks(config, self.task.outputs, devices)
        self.start = None  # what was loaded, and what is new
        self.begun_by, self.elapsed = command(), 0.0  # its first command; seconds of all epochs
        self.further = {}  # figures of the last evaluation, see Task
        if fresh and config.start_from:
            self.start = load_start(self.net, config)
        scale_rates(self.net, config.lr_mult, freeze(self.net, config.freeze))
        self.engine = make_engine(
            self.net,
            self._loss(),
            self.schedule,
            config.optimizer,
            seed=config.seed,
            precision=config.precision,
            workers=self.workers,
        )
        self._begin(epoch=1)

    def _begin(self, epoch):
        self.epoch, self.batch, self.meter = epoch, 0, self.task.meter()
        self.seconds, self.waited = 0.0, 0.0  # of this epoch's training, and of them without data

    @property
    def images(self):
        """That this epoch has trained on."""
        return self.batch * self.batch_size * self.workers.count

    def _loss(self):
        distillation = self.config.distillation
        if distillation.teacher is None:
            return self.task.loss
        shape = self.dataset.train.image_shape
        teacher = load_teacher(distillation, self.task.outputs, shape, self.devices)
        given = {
            key: getattr(distillation, key)
            for key in ("weight", "temperature")
            if getattr(distillation, key) is not None
        }
        return Distillation(self.task.loss, teacher, **given)

    def introduce(self):
        """Print what is trained, on what, and where to: what follows takes long."""
        if self.workers.rank != 0:
            return
        config, data = self.config, self.dataset
        print(f"{describe_model(config.model.name, config.model.options)}, {self._size()}")
        print(
            f"{data.name}, {data.labels}: {len(data.train):,} training and {len(data.test):,} "
            f"{self._tested_on} images; batch {self.batch_size * self.workers.count} on "
            + describe_devices(self.engine.devices, self.workers.count)
        )
        if self.start:
            print(f"start from {describe_start(self.start)}")
        print(f"epochs {self.epoch} to {config.epochs}, into {self.run.path}", flush=True)

    @property
    def _tested_on(self):
        return DATASETS[self.config.data.name].tested_on

    def _size(self):
        try:
            return f"{count_parameters(self.net)[0]:,} parameters"
        except UserError:  # the first batch will settle the shapes
            return "parameters not known yet"

    def fit(self, stop):
        first = self.workers.rank == 0
        if self.config.data.batch_size == 1 and first:
            print(
                "warning: with batch size 1 per device, the batch norm of a global context outputs "
                "a constant (beta)"
            )
        while self.epoch <= self.config.epochs:
            self._train_epoch(stop)
            # Before the evaluation, which may take long, or fail on an unreadable image.
            self.save()
            self._stop_if_asked(stop)
            row = self._evaluate()
            self.run.log(row)
            if first:
                print(self._line(row), flush=True)
            self.run.save_best(self.net, row)
            self._begin(self.epoch + 1)
        self.run.save("last", self.net)
        self.engine.finish(self.run.path)
        return self.run.finish(self._result(), self.dataset.class_names)

    def _train_epoch(self, stop):
        mixing = self.epoch <= self.config.epochs - (self.config.data.mixup_off_epochs or 0)
        every = self.config.checkpoint_steps
        self._since, self._waited_before = time.perf_counter(), 0.0
        images_a_step = self.batch_size * self.workers.count
        with progress_bar(
            total=len(self.batches) * images_a_step,
            initial=self.batch * images_a_step,
            unit="img",
            desc=self._title(),
            hidden=self.workers.rank != 0,
        ) as bar:
            for images, targets in self.batches.epoch(self.epoch, self.batch, mixing):
                try:
                    self.engine.train_step(images, targets, self.meter)
                except NonFiniteLoss:
                    raise self._not_finite() from None
                self.batch += 1
                bar.set_postfix(loss=f"{self.meter.mean_loss():.3f}", refresh=False)
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
        self._spend(now - self._since)
        self.waited += self.batches.waited - self._waited_before
        self._since, self._waited_before = now, self.batches.waited

    def _spend(self, seconds):
        if self.elapsed is not None:  # it is not known of runs that an earlier edition began
            self.elapsed += seconds

    def _evaluate(self):
        """Evaluate what was just saved, and return the epoch's row of metrics."""
        start = time.perf_counter()
        try:
            trained = self.meter.values(self.workers.sum)
            tested = self.engine.evaluate(
                self.evaluation_net, self.test_batches.epoch(), self.task
            ).values(self.workers.sum)
        except NonFiniteLoss:
            raise self._not_finite() from None
        figures, headline = self._figures(), self.task.headline
        if tested[headline.key] is None:
            raise UserError(
                f"the {self._tested_on} split says nothing about the {headline.title}: it has no "
                "image, or no pixel, that counts"
            )
        self.further = {f"last_{key}": tested.get(key) for key in self.task.further}
        seconds = time.perf_counter() - start
        self._spend(seconds)
        return {
            "epoch": self.epoch,
            "lr": self.schedule(self.engine.step - 1),
            **{f"train_{key}": trained[key] for key in figures},
            **{f"test_{key}": tested[key] for key in figures},
            "images_per_second": self.images / self.seconds,
            "waited_for_data": self.waited / self.seconds,
            "evaluation_seconds": seconds,
        }

    def _figures(self):
        """What is measured in an epoch, on either split."""
        return ["loss", *(metric.key for metric in self.task.metrics)]

    def _line(self, row):
        epochs = self.config.epochs - self.epoch
        left = datetime.timedelta(
            seconds=round(epochs * (self.seconds + row["evaluation_seconds"]))
        )
        parts = []
        for part in ("train", "test"):
            figures = [f"{part} loss {row[part + '_loss']:.3f}"]
            figures += [
                f"{metric.title} {metric.show(row[f'{part}_{metric.key}'])}"
                for metric in self.task.metrics
            ]
            parts.append(", ".join(figures))
        return (
            "{}: lr {lr:.4f}, {}; {}; {images_per_second:.0f} images/s, {waited_for_data:.0%} of "
            "the time waiting for data; {} left".format(self._title(), *parts, left, **row)
        )

    def save(self):
        """Write a checkpoint of this very moment."""
        try:
            sums = self.meter.state(self.workers.sum)
        except NonFiniteLoss:
            raise self._not_finite() from None
        self.engine.settle()
        state = {
            **self.engine.state(),
            "framework": self.engine.framework,
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": sums,
            "seconds": self.seconds,
            "waited": self.waited,
            "elapsed": self.elapsed,
            "begun_by": self.begun_by,
            "rows": self.run.rows,
            "start": self.start,
            "devices": len(self.devices),
            "workers": self.workers.count,
            "config": dataclasses.asdict(self.config),
        }
        self.run.checkpoint(self.engine, state)

    def restore(self, path, changed=()):
        """Go back to the moment of a checkpoint; ``changed``: settings that may differ from its."""

        def check(state):
            if "config" in state:  # not in those of earlier editions
                refuse_differences(self.config, state["config"], changed, self.run.path, path)
            if self.config.epochs < state["epoch"]:
                raise UserError(
                    f"epochs={self.config.epochs} is too few: the run is in epoch {state['epoch']}"
                )
            columns = [f"{part}_{key}" for part in ("train", "test") for key in self._figures()]
            always = ("train_loss", "test_loss", f"test_{self.task.headline.key}")
            row = {key: float if key in always else (float, None) for key in columns}
            check_kind(state["rows"], [row], "rows")

        state = load_checkpoint(path, self.engine, self.workers.count, check)
        self.engine.restore(state)
        self.start = state.get("start")
        self.elapsed, self.begun_by = state.get("elapsed"), state.get("begun_by")
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.seconds, self.waited = state["seconds"], state["waited"]
        self.meter = self.task.meter()
        if self.workers.rank == 0:  # the checkpoint's sums are of all workers
            self.meter.restore(state["sums"])
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
        rows, headline, best = self.run.rows, self.task.headline.key, self.run.best
        return {
            "model": self.config.model.name,
            "fusion": fusion_of(self.config.model.name, self.config.model.options),
            "options": self.config.model.options,
            "parameters": total,
            "trainable_parameters": trainable,
            "task": self.task.key,
            "dataset": self.dataset.name,
            "classes": self.task.classes,
            "input_shape": list(self.dataset.train.image_shape),
            "mean": list(self.dataset.mean),
            "std": list(self.dataset.std),
            "labels": self.dataset.labels,
            "granularity": self.dataset.granularity,
            "split": self.dataset.split,
            "training_images": len(self.batches) * self.batch_size * self.workers.count,
            "protocol": protocol(
                self.config, self.batch_size * self.workers.count, self.engine.framework
            ),
            **({"start": self.start} if self.start else {}),
            "seed": self.config.seed,
            "framework": self.engine.framework,
            "devices": list(map(str, self.engine.devices)),
            "workers": self.workers.count,
            "headline": headline,
            f"best_{headline}": best[f"test_{headline}"],
            "best_epoch": best["epoch"],
            "best_selection": f"chosen on the {self._tested_on} split",
            f"last_{headline}": rows[-1][f"test_{headline}"],
            **{key: value for key, value in self.further.items() if value is not None},
            **({"seconds": round(self.elapsed, 1)} if self.elapsed is not None else {}),
            **({"begun_by": self.begun_by} if self.begun_by not in (None, command()) else {}),
            "processor": processor(),
            "images_per_second": float(np.median([row["images_per_second"] for row in rows])),
        }


def protocol(config, batch_size, framework=Engine.framework):
    """The recipe in one line, for result files."""
    parts = [
        f"{config.epochs} epochs",
        config.optimizer.describe(),
        config.schedule.describe(),
        f"batch {batch_size}",
        *describe_augmentation(config.data),
        *(f"{key.replace('_', ' ')} {value}" for key, value in config.loss.items() if value),
    ]
    if config.optimizer.clip_gradient:
        parts.append(f"gradients clipped at {config.optimizer.clip_gradient:g}")
    if config.distillation.teacher:
        settings = {key: getattr(config.distillation, key) for key in ("weight", "temperature")}
        given = (f", {key} {value:g}" for key, value in settings.items() if value is not None)
        parts.append(f"distilled from {config.distillation.teacher}{''.join(given)}")
    if config.sync_batch_norm:
        parts.append("synchronised batch norms")
    if config.start_from:
        start = config.start_from
        if start not in PUBLISHED:
            start = "/".join(pathlib.Path(start).parts[-2:])
        parts.append(f"continued from {start}")
    parts += describe_finetuning(config)
    if framework != Engine.framework:
        parts.append(f"trained in {framework}")
    return "; ".join(parts + [config.initializer, config.precision])


def networks(config, outputs, devices):
    """The network to train and the evaluation network, initialised alike on all devices."""
    options = dict(config.model.options)
    if config.sync_batch_norm:
        if len(devices) == 1:
            raise UserError("sync_batch_norm has no effect on one device: name several, --devices")
        if devices[0].device_type == "cpu":
            raise UserError(
                "sync_batch_norm needs GPUs: MXNet's operator hangs on CPUs, so openaff refuses it"
            )
        options["norm_layer"] = mx.gluon.contrib.nn.SyncBatchNorm
        norm_kwargs = options.get("norm_kwargs") or {}
        options["norm_kwargs"] = {**norm_kwargs, "num_devices": len(devices)}
    dtype = "float16" if config.precision == "float16" else "float32"
    if config.precision == "amp":
        amp.init()
    evaluation_net = create_model(config.model.name, num_classes=outputs, **config.model.options)
    net = create_model(config.model.name, num_classes=outputs, **options)
    for each in (evaluation_net, net):
        initialize(each, devices, config.initializer, dtype)
    return net, evaluation_net


def _check_precision(config, devices):
    if config.precision != "float32" and devices[0].device_type == "cpu":
        raise UserError(
            f"precision={config.precision} needs GPUs: MXNet has no float16 convolutions for the "
            "CPU; take --devices gpu:0 or precision=float32"
        )
