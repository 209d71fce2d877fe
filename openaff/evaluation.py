"""How well a network does on a data set's test split."""

import time

import mxnet as mx
from tqdm import tqdm

from .data.augment import Normalize
from .data.loader import BatchLoader
from .errors import UserError
from .training.engine import evaluate


def evaluate_network(net, dataset, devices, batch_size=128):
    """Loss and accuracy of ``net`` over the test split, as what a result file says of them.

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

    Returns
    -------
    dict
        ``loss``, ``accuracy`` and ``top5`` (fractions; ``top5`` None below five classes), with
        what they were measured on.

    Raises
    ------
    UserError
        Fewer outputs than classes.
    """
    classes = len(dataset.class_names)
    _, height, width, _ = dataset.test.images.shape
    outputs = net(mx.nd.zeros((1, 3, height, width), ctx=devices[0])).shape[1]
    if outputs < classes:
        raise UserError(
            f"the network has {outputs} outputs, too few for {dataset.name}, {dataset.labels}"
        )

    def logits(images):
        return net(images).slice_axis(axis=1, begin=0, end=classes)

    batches = BatchLoader(
        dataset.test, batch_size * len(devices), Normalize(dataset.mean, dataset.std)
    )
    start = time.perf_counter()
    bar = tqdm(batches.epoch(), total=len(batches), unit="batch", leave=False, disable=None)
    means = evaluate(logits, bar, devices)
    return {
        "dataset": dataset.name,
        "labels": dataset.labels,
        "split": dataset.split,
        "mean": dataset.mean,
        "std": dataset.std,
        "classes": classes,
        "outputs": outputs,
        **means,
        "images": len(dataset.test),
        "images_per_second": len(dataset.test) / (time.perf_counter() - start),
        "batch_size": batch_size,
        "devices": list(map(str, devices)),
    }
