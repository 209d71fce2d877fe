"""What smaller number types cost: images to calibrate on, and accuracies before and after."""

import itertools
import pathlib

import mxnet as mx

from ..data import DataConfig
from ..data.batches import training_batches
from ..tasks import load_task
from ..tasks.evaluation import evaluate_network
from ..utils.errors import UserError
from .onnx_model import network


def calibration_batches(dataset, images, batch_size=32):
    """Batches of ``images`` random training images, scaled; of photographs, random parts.

    Yields
    ------
    numpy.ndarray
        float32 (batch_size, 3, H, W).

    Raises
    ------
    UserError
        Fewer training images than asked for, or than a batch.
    """
    count = -(-images // batch_size)
    plain = DataConfig(name=dataset.name, crop_padding=0, flip=False, workers=0)
    batches = training_batches(dataset, plain, batch_size)
    if len(batches) < count:
        raise UserError(
            f"{dataset.name} has {len(dataset.train)} training images, too few to calibrate on "
            f"{images}"
        )
    return (batch.asnumpy() for batch, _ in itertools.islice(batches.epoch(), count))


def accuracies(net, folder, description, dataset):
    """The headline figure on the test split, of the network and of each ONNX file of its export.

    Returns
    -------
    dict
        What ``export.json`` says under ``accuracy``.
    """
    headline = load_task(dataset).headline.key
    rows = {"network": net}
    for name in description["files"]:
        if name.endswith(".onnx"):
            rows[name] = network(pathlib.Path(folder) / name)
    results = {name: evaluate_network(run, dataset, [mx.cpu()])[0] for name, run in rows.items()}
    return {
        "dataset": dataset.name,
        "labels": dataset.labels,
        "split": dataset.split,
        "images": results["network"]["images"],
        "headline": headline,
        headline: {name: result[headline] for name, result in results.items()},
    }
