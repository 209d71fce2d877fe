"""How well a network does on a data set's test split."""

import csv
import math
import time

import mxnet as mx
from mxnet import gluon

from ..data.batches import test_batches
from ..utils.errors import UserError
from ..utils.files import atomic
from ..utils.progress import progress_bar
from . import load_task


def split(array, devices):
    """An NDArray's rows, shared out over devices; fewer where there are fewer rows than devices."""
    devices = devices[: len(array)]
    return gluon.utils.split_and_load(array, devices, even_split=False)


def evaluate(net, batches, task, devices, dtype="float32", detailed=False):
    """One pass without updates.

    Parameters
    ----------
    net : callable
        (N, 3, H, W) of type ``dtype`` -> outputs, on any of ``devices``.
    batches : iterable
        Images and targets.
    task : Task
        Gives the loss and the meter.
    devices : list of mx.Context
        Each gets an equal share of every batch.
    dtype : str
        What the images are cast to.
    detailed : bool
        Also measure class by class.

    Returns
    -------
    Meter
        Its sums are of this process's images alone.
    """
    loss, meter = task.test_loss, task.meter(detailed)
    for images, targets in batches:
        xs, ys = split(images.astype(dtype, copy=False), devices), split(targets, devices)
        outputs = [net(x) for x in xs]
        meter.add([loss(output, y) for output, y in zip(outputs, ys)], outputs, ys)
    return meter


def evaluate_network(net, dataset, devices, batch_size=None, workers=None, task=None):
    """How well ``net`` does on the test split, as what a result file says of it.

    Of a network with more outputs than the data set has classes the first ones are used: the
    authors' coarse CIFAR-100 checkpoints have 100 outputs for 20 classes.

    Parameters
    ----------
    net : callable
        float (N, 3, H, W) -> float (N, outputs, ...), its parameters on ``devices``.
    dataset : Dataset
        Its mean and std scale the images.
    devices : list of mx.Context
        Each gets an equal share of every batch.
    batch_size : int, optional
        Images per device, by default 128, or 8 of a dense task, whose outputs are large.
    workers : int, optional
        Processes or threads that read images, by default chosen from the machine.
    task : Task, optional
        The data set's task, by default with the default loss.

    Returns
    -------
    result : dict
        ``loss`` and every metric of the task, with what they were measured on.
    meter : Meter
        The detailed sums.

    Raises
    ------
    UserError
        Fewer outputs than classes, or no images.
    """
    task = task or load_task(dataset)
    batch_size = batch_size or (8 if task.dense else 128)
    batches = test_batches(dataset, batch_size * len(devices), workers)
    shape = dataset.test.image_shape
    outputs = net(mx.nd.zeros((1,) + shape, ctx=devices[0])).shape[1]
    used_outputs = task.used_outputs(outputs)
    if outputs < used_outputs:
        raise UserError(
            f"the network has {outputs} outputs, too few for {dataset.name}, {dataset.labels}"
        )

    def used(images):
        return net(images).slice_axis(axis=1, begin=0, end=used_outputs)

    start = time.perf_counter()
    bar = progress_bar(batches.epoch(), total=len(batches), unit="batch")
    meter = evaluate(used, bar, task, devices, detailed=True)
    values = meter.values()
    seconds = time.perf_counter() - start
    return {
        "task": task.key,
        "dataset": dataset.name,
        "labels": dataset.labels,
        "split": dataset.split,
        "mean": dataset.mean,
        "std": dataset.std,
        "classes": task.classes,
        "outputs": outputs,
        **values,
        "images": meter.images,
        "images_per_second": meter.images / seconds,
        "batch_size": batch_size,
        "devices": list(map(str, devices)),
    }, meter


def write_per_class(path, rows):
    """A CSV file of what a task's ``per_class`` gave, the worst classes first."""
    values = [tuple(row.values()) for row in rows]
    worst_first = sorted(values, key=lambda row: (math.isnan(row[-1]), row[-1]))
    _write_csv(path, [tuple(rows[0])] + worst_first)


def write_confusion(path, class_names, confusion):
    """A CSV file of true classes (rows) and predicted ones (columns)."""
    rows = [(name, *map(int, counts)) for name, counts in zip(class_names, confusion)]
    _write_csv(path, [("true \\ predicted", *class_names)] + rows)


def _write_csv(path, rows):
    with atomic(path) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows(rows)
