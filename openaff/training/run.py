"""From a configuration to a finished run folder."""

import pathlib
import random
import time

import mxnet as mx
import numpy as np
from tqdm import tqdm

from ..complexity import count_parameters
from ..config import load_config, to_yaml
from ..data import load_dataset
from ..data.augment import Normalize, training_transform
from ..data.loader import BatchLoader
from ..data.mixing import Mixup
from ..errors import UserError
from ..models import create_model
from .checkpointing import LAST, load_checkpoint, save_checkpoint
from .engine import Engine, NonFiniteLoss, Sums, initialize
from .interrupt import Stopped, StopRequest
from .schedule import Schedule
from .tracking import Run, refuse_existing


def train(config, out, devices):
    """Train as ``config`` says into the new folder ``out``; returns what its result.json says.

    Parameters
    ----------
    config : Config
        See :func:`~openaff.config.load_config`.
    out : path-like
        The run folder, which must not exist.
    devices : list of mx.Context
        See :func:`~openaff.training.devices.parse_devices`.

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
    session.run = Run(out, to_yaml(config))
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
    run = Run.reopen(folder)
    session = _Session(load_config(folder / "config.yaml"), devices)
    session.run = run
    session.restore(folder / checkpoint)
    return session.fit()


class _Session:
    """One run: what it trains on, and where in it we are."""

    def __init__(self, config, devices):
        for seed in (random.seed, np.random.seed, mx.random.seed):
            seed(config.seed)
        self.config = config
        self.devices = devices
        self.dataset = load_dataset(config.data)
        classes = len(self.dataset.class_names)
        self.net, twin = (
            create_model(config.model.name, num_classes=classes, **config.model.options)
            for _ in range(2)
        )
        for net in (twin, self.net):
            initialize(net, devices, config.initializer)
        self.batch_size = config.data.batch_size * len(devices)
        self.batches = BatchLoader(
            self.dataset.train,
            self.batch_size,
            training_transform(self.dataset, config.data),
            train=True,
            seed=config.seed,
            mixup=Mixup(config.data.mixup_alpha, classes) if config.data.mixup_alpha else None,
            workers=config.data.workers,
        )
        normalize = Normalize(self.dataset.mean, self.dataset.std)
        self.test_batches = BatchLoader(self.dataset.test, self.batch_size, normalize)
        self.schedule = Schedule(
            config.schedule, config.optimizer.lr, config.epochs, len(self.batches)
        )
        self.engine = Engine(self.net, twin, devices, self.schedule, config.optimizer, config.seed)
        self.epoch, self.batch, self.sums = 1, 0, Sums()

    def fit(self):
        if self.config.data.batch_size == 1:
            print("warning: one image a device and step: batch norms over 1x1 maps give their beta")
        with StopRequest() as stop:
            while self.epoch <= self.config.epochs:
                self._train_epoch(stop)
                row = self._evaluate()
                self.run.log(row)
                best = max(self.run.rows, key=lambda each: each["test_accuracy"])
                if best is row:
                    self.run.save("best", self.net)
                self.epoch, self.batch, self.sums = self.epoch + 1, 0, Sums()
                self.save()
        self.run.save("last", self.net)
        result = self._result()
        self.run.finish(result)
        return result

    def _train_epoch(self, stop):
        mixing = self.epoch <= self.config.epochs - (self.config.data.mixup_off_epochs or 0)
        every = self.config.checkpoint_steps
        start = time.perf_counter()
        first = self.batch
        with tqdm(
            total=len(self.batches) * self.batch_size,
            initial=self.batch * self.batch_size,
            unit="img",
            desc=self._title(),
            leave=False,
            disable=None,
        ) as bar:
            for images, labels in self.batches.epoch(self.epoch, self.batch, mixing):
                try:
                    self.engine.train_step(images, labels, self.sums)
                except NonFiniteLoss:
                    raise self._not_finite() from None
                self.batch += 1
                bar.set_postfix(loss=f"{self.sums.mean_loss():.3f}", refresh=False)
                bar.update(len(images))
                if stop.signal or (every and self.engine.step % every == 0):
                    self.save()
                if stop.signal:
                    raise Stopped(
                        f"{stop.signal}: stopped after step {self.engine.step}; go on with "
                        f"--resume {self.run.path}"
                    )
        mx.nd.waitall()  # the last update, too, belongs to the time
        images = (self.batch - first) * self.batch_size
        seconds = time.perf_counter() - start
        self.rate = images / seconds
        self.waited = self.batches.waited / seconds

    def _evaluate(self):
        """Evaluate, say and return the epoch's row of metrics."""
        try:
            trained = self.sums.means()
            tested = self.engine.evaluate(self.test_batches.epoch())
        except NonFiniteLoss:
            raise self._not_finite() from None
        row = {
            "epoch": self.epoch,
            "lr": self.schedule(self.engine.step - 1),
            "train_loss": trained["loss"],
            "train_accuracy": trained["accuracy"],
            "test_loss": tested["loss"],
            "test_accuracy": tested["accuracy"],
            "images_per_second": self.rate,
            "waited_for_data": self.waited,
        }
        print(
            "{}: lr {lr:.4f}, train loss {train_loss:.3f}, accuracy {train_accuracy:.2%}; "
            "test loss {test_loss:.3f}, accuracy {test_accuracy:.2%}; "
            "{images_per_second:.0f} images/s, {waited_for_data:.0%} of the time waiting for "
            "data".format(self._title(), **row),
            flush=True,
        )
        return row

    def save(self):
        """Write a checkpoint of this very moment."""
        try:
            sums = self.sums.state()
        except NonFiniteLoss:
            raise self._not_finite() from None
        state = {
            "step": self.engine.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": sums,
            "rows": self.run.rows,
            "devices": len(self.devices),
        }
        save_checkpoint(self.run.path, self.net, self.engine.trainer, state)

    def restore(self, path):
        """Go back to the moment of a checkpoint."""
        state = load_checkpoint(path, self.net, self.engine.trainer, self.devices)
        self.engine.step = state["step"]
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.sums = Sums(**state["sums"])
        self.run.rewind(state["rows"])

    def _title(self):
        return f"epoch {self.epoch}/{self.config.epochs}"

    def _not_finite(self):
        step = self.engine.step - 1
        last = self.run.path / LAST
        return UserError(
            f"the loss is not finite at step {step} (learning rate {self.schedule(step):g}); the "
            f"last good checkpoint is {last if last.exists() else 'none'}: take a smaller "
            "optimizer.lr, a longer schedule.warmup_epochs, or optimizer.clip_gradient"
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
            "labels": self.dataset.labels,
            "split": self.dataset.split,
            "protocol": protocol(self.config, self.batch_size),
            "seed": self.config.seed,
            "devices": list(map(str, self.devices)),
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
        decay += " at {}".format(", ".join(map("{:g}".format, schedule.milestones)))
    parts = [
        f"{config.epochs} epochs",
        f"NAG, lr {optimizer.lr:g}, momentum {optimizer.momentum:g}, "
        f"weight decay {optimizer.weight_decay:g}"
        + (" (not on bias, gamma, beta)" if optimizer.no_wd else ""),
        decay,
        f"{schedule.warmup_epochs:g} warm-up epochs",
        f"batch {batch_size}",
        f"crop padding {data.crop_padding}",
        "flip" if data.flip else "no flip",
    ]
    if data.autoaugment:
        parts.append(f"AutoAugment {data.autoaugment}")
    if data.mixup_alpha:
        off = data.mixup_off_epochs or 0
        parts.append(f"mixup {data.mixup_alpha:g}, off in the last {off} epochs")
    if optimizer.label_smoothing:
        parts.append(f"label smoothing {optimizer.label_smoothing:g}")
    if optimizer.clip_gradient:
        parts.append(f"gradients clipped at {optimizer.clip_gradient:g}")
    return "; ".join(parts + [config.initializer, "float32"])
