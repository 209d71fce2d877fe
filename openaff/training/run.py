"""From a configuration to a finished run folder."""

import random

import mxnet as mx
import numpy as np
from tqdm import tqdm

from ..complexity import count_parameters
from ..config import to_yaml
from ..data import load_dataset
from ..data.augment import Normalize, training_transform
from ..data.loader import BatchLoader
from ..models import create_model
from .engine import Engine, initialize
from .schedule import Schedule
from .tracking import Run


def build_model(config, num_classes):
    """The network of a :class:`~openaff.config.ModelConfig`."""
    return create_model(config.name, num_classes=num_classes, **config.options)


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
        Whatever is wrong with data, model or folder, before the folder is made.
    """
    for seed in (random.seed, np.random.seed, mx.random.seed):
        seed(config.seed)
    dataset = load_dataset(config.data)
    net = build_model(config.model, len(dataset.class_names))
    initialize(net, devices)
    batch_size = config.data.batch_size * len(devices)
    train_batches = BatchLoader(
        dataset.train,
        batch_size,
        training_transform(dataset, config.data),
        train=True,
        seed=config.seed,
    )
    test_batches = BatchLoader(dataset.test, batch_size, Normalize(dataset.mean, dataset.std))
    schedule = Schedule(config.schedule, config.optimizer.lr, config.epochs, len(train_batches))
    engine = Engine(net, devices, schedule, config.optimizer)
    run = Run(out, to_yaml(config))
    best = None
    for epoch in range(1, config.epochs + 1):
        title = f"epoch {epoch}/{config.epochs}"
        with tqdm(
            total=len(train_batches) * batch_size, unit="img", desc=title, leave=False, disable=None
        ) as bar:

            def show(images, loss, bar=bar):
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update(images)

            trained = engine.train(train_batches.epoch(epoch), show)
        tested = engine.evaluate(test_batches.epoch())
        row = {
            "epoch": epoch,
            "lr": schedule(engine.step - 1),
            "train_loss": trained["loss"],
            "train_accuracy": trained["accuracy"],
            "test_loss": tested["loss"],
            "test_accuracy": tested["accuracy"],
            "images_per_second": trained["images_per_second"],
        }
        print(
            "{}: lr {lr:.4f}, train loss {train_loss:.3f}, accuracy {train_accuracy:.2%}; "
            "test loss {test_loss:.3f}, accuracy {test_accuracy:.2%}; "
            "{images_per_second:.0f} images/s".format(title, **row),
            flush=True,
        )
        run.log(row)
        run.save("last", net)
        if best is None or row["test_accuracy"] > best["test_accuracy"]:
            best = row
            run.save("best", net)
    trainable, total = count_parameters(net)
    rates = [each["images_per_second"] for each in run.rows]
    result = {
        "model": config.model.name,
        "options": config.model.options,
        "parameters": total,
        "trainable_parameters": trainable,
        "dataset": dataset.name,
        "classes": len(dataset.class_names),
        "labels": dataset.labels,
        "split": dataset.split,
        "protocol": protocol(config, batch_size),
        "seed": config.seed,
        "devices": list(map(str, devices)),
        "best_accuracy": best["test_accuracy"],
        "best_epoch": best["epoch"],
        "best_selection": "chosen on the test split",
        "last_accuracy": run.rows[-1]["test_accuracy"],
        "images_per_second": float(np.median(rates)),
    }
    run.finish(result)
    return result


def protocol(config, batch_size):
    """The recipe in one line, for result files."""
    schedule, optimizer = config.schedule, config.optimizer
    decay = schedule.name
    if schedule.name == "step":
        decay += " at {}".format(", ".join(map("{:g}".format, schedule.milestones)))
    parts = [
        f"{config.epochs} epochs",
        f"NAG, lr {optimizer.lr:g}, momentum {optimizer.momentum:g}, "
        f"weight decay {optimizer.weight_decay:g}",
        decay,
        f"{schedule.warmup_epochs:g} warm-up epochs",
        f"batch {batch_size}",
        f"crop padding {config.data.crop_padding}",
        "flip" if config.data.flip else "no flip",
        "float32",
    ]
    return "; ".join(parts)
