"""How well a network does on a data set's test split."""

import csv
import math
import time

import mxnet as mx
import numpy as np
from tqdm import tqdm

from ..data.batches import test_batches
from ..training.config import PHOTOS
from ..training.engine import evaluate
from ..utils.errors import UserError
from ..utils.files import atomic


def evaluate_network(net, dataset, devices, batch_size=128, workers=None, ten_crop=None):
    """How well ``net`` does on the test split, as what a result file says of it.

    Of a network with more outputs than the data set has classes the first ones are used: the
    authors' coarse CIFAR-100 checkpoints have 100 outputs for 20 classes.

    Parameters
    ----------
    net : HybridBlock
        float (N, 3, H, W) -> logits, float (N, outputs), its parameters on ``devices``.
    dataset : Dataset
        Its mean and std scale the images.
    devices : list of mx.Context
        Each gets its share of every batch.
    batch_size : int
        Images per device.
    workers : int, optional
        Processes or threads that read images, by default chosen from the machine.
    ten_crop : int, optional
        Cut ten squares of so many pixels from each image, its corners and centre and their mirror
        images, and take the mean of the ten distributions.

    Returns
    -------
    result : dict
        ``loss``, ``accuracy`` and ``top5`` (fractions; ``top5`` None below five classes), with
        what they were measured on.
    confusion : numpy.ndarray
        int64 (classes, classes): how many images of a row's class were taken for a column's.

    Raises
    ------
    UserError
        Fewer outputs than classes, no images, or squares larger than the images.
    """
    classes = len(dataset.class_names)
    batches = test_batches(dataset, batch_size * len(devices), workers)
    shape = dataset.test.image_shape
    if ten_crop is not None:
        if ten_crop > shape[1]:
            raise UserError(f"squares of {ten_crop} pixels do not fit into images of {shape[1]}")
        shape = (3, ten_crop, ten_crop)
    outputs = net(mx.nd.zeros((1,) + shape, ctx=devices[0])).shape[1]
    if outputs < classes:
        raise UserError(
            f"the network has {outputs} outputs, too few for {dataset.name}, {dataset.labels}"
        )
    predicted, expected = [], []

    def used(images):
        return net(images).slice_axis(axis=1, begin=0, end=classes)

    def logits(images):
        if ten_crop is None:
            result = used(images)
        else:
            crops = [used(crop).softmax() for crop in ten_crops(images, ten_crop)]
            result = mx.nd.add_n(*crops).log() - math.log(len(crops))
        predicted.append(result.argmax(axis=1))
        return result

    def labelled():
        for images, labels in batches.epoch():
            expected.append(labels)
            yield images, labels

    start = time.perf_counter()
    bar = tqdm(labelled(), total=len(batches), unit="batch", leave=False, disable=None)
    means = evaluate(logits, bar, devices)
    seconds = time.perf_counter() - start
    truth, guess = (
        np.concatenate([each.asnumpy() for each in parts]).astype(int)
        for parts in (expected, predicted)
    )
    confusion = np.zeros((classes, classes), "int64")
    np.add.at(confusion, (truth, guess), 1)
    return {
        "dataset": dataset.name,
        "labels": dataset.labels,
        "split": dataset.split,
        "mean": dataset.mean,
        "std": dataset.std,
        "classes": classes,
        "outputs": outputs,
        "ten_crop": ten_crop,
        **means,
        "images": len(truth),
        "images_per_second": len(truth) / seconds,
        "batch_size": batch_size,
        "devices": list(map(str, devices)),
    }, confusion


def one_line(result):
    """A result in words: accuracy or, of photographs, error, as the tables print it."""
    accuracy = result["dataset"] not in PHOTOS
    line = "{model} on {dataset} test, {labels}:".format(**result)
    for name, value in (("top-1", result["accuracy"]), ("top-5", result["top5"])):
        if value is not None:
            line += f" {name} {value:.2%}," if accuracy else f" {name} error {1 - value:.2%},"
    line = line[:-1] + " ({images:,} images, {images_per_second:.0f} images/s)".format(**result)
    if result["ten_crop"]:
        line += "; mean over ten crops"
    if result["outputs"] > result["classes"]:
        line += "; the first {classes} of {outputs} outputs used".format(**result)
    if result["published"]:
        line += "; published: {metric} {score:.2%} ({selection})".format(**result["published"])
    return line


def ten_crops(images, size):
    """The corners and the centre of (N, 3, H, W) images, then their mirror images."""
    _, _, height, width = images.shape
    bottom, right = height - size, width - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = [images[:, :, y : y + size, x : x + size] for y, x in corners]
    return crops + [crop.flip(axis=3) for crop in crops]


def write_per_class(path, class_names, confusion):
    """A CSV file of every class's images and accuracy, the worst first."""
    images, hits = confusion.sum(axis=1), confusion.diagonal()
    rows = [
        (name, count, hit, hit / count if count else float("nan"))
        for name, count, hit in zip(class_names, images, hits)
    ]
    rows.sort(key=lambda row: (not row[1], row[3]))
    _write_csv(path, [("class", "images", "correct", "accuracy")] + rows)


def write_confusion(path, class_names, confusion):
    """A CSV file of true classes (rows) and predicted ones (columns)."""
    rows = [(name, *counts) for name, counts in zip(class_names, confusion)]
    _write_csv(path, [("true \\ predicted", *class_names)] + rows)


def _write_csv(path, rows):
    with atomic(path) as temporary:
        with open(temporary, "w", newline="") as out:
            csv.writer(out).writerows(rows)
