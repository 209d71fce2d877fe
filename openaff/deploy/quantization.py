"""What smaller number types cost: images to calibrate on, and accuracies before and after."""

import dataclasses
import itertools
import pathlib

import mxnet as mx

from ..data.batches import training_batches
from ..data.records import RecordSet
from ..tasks import load_task
from ..tasks.evaluation import evaluate_network
from ..utils.errors import UserError
from .onnx_model import network


def calibration_batches(dataset, config, images, batch_size=32):
    """Batches of ``images`` random training images, scaled; of photographs, random parts.

    ``config``, the :class:`~openaff.data.DataConfig` of ``dataset``, says what they are cropped to.

    Yields
    ------
    numpy.ndarray
        float32 (batch_size, 3, H, W).

    Raises
    ------
    UserError
        Fewer training images than asked for, or than a batch; images of several sizes that nothing
        crops to one.
    """
    count = -(-images // batch_size)
    workers = None if isinstance(dataset.train, RecordSet) else 0  # MXNet's reader needs one
    without = dict.fromkeys(("scale_range", "jitter", "pca_noise", "autoaugment"))
    plain = dataclasses.replace(
        config, crop_padding=0, flip=False, mixup_alpha=0.0, workers=workers, **without
    )
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
