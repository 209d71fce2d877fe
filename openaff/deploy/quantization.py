"""What smaller number types cost: images to calibrate on, and accuracies before and after."""

import dataclasses
import itertools
import pathlib

import mxnet as mx
import numpy as np

from ..data.batches import training_batches
from ..data.records import RecordSet
from ..tasks import load_task
from ..tasks.evaluation import evaluate_network
from ..utils.errors import UserError
from .onnx_model import network


def calibration_batches(dataset, config, images, batch_size=32):
    """``images`` random training images in batches, scaled; of photographs, random parts.

    ``config``, the :class:`~openaff.data.DataConfig` of ``dataset``, says what they are cropped to.

    Yields
    ------
    numpy.ndarray
        float32 (batch_size, 3, H, W), the last batch with what is left.

    Raises
    ------
    UserError
        Fewer training images than asked for; images of several sizes that nothing crops to one.
    """
    workers = None if isinstance(dataset.train, RecordSet) else 0  # MXNet's reader needs one
    without = dict.fromkeys(("scale_range", "jitter", "pca_noise", "autoaugment"))
    plain = dataclasses.replace(
        config, crop_padding=0, flip=False, mixup_alpha=0.0, workers=workers, **without
    )
    loader = training_batches(dataset, plain, 1)
    if len(loader) < images:
        raise UserError(
            f"{dataset.name} has {len(dataset.train)} training images, too few to calibrate on "
            f"{images}"
        )
    singles = (image.asnumpy() for image, _ in itertools.islice(loader.epoch(), images))
    groups = iter(lambda: list(itertools.islice(singles, batch_size)), [])
    return (np.concatenate(group) for group in groups)


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
