"""Semantic segmentation: a class for every pixel; mean IoU, pixel accuracy, IoU and nIoU.

A network's outputs are logits (N, K, H, W).  For two classes, background and target, there may be
one output z alone, which stands for the logits 0 and z.  Targets are maps (N, H, W) of classes,
with IGNORE where a pixel does not count.
"""

import functools
from typing import NamedTuple, Tuple

import mxnet as mx
import numpy as np
from mxnet import gluon

from ..data.transforms import IGNORE, nearest
from ..utils.errors import UserError, suggest
from .base import TASKS, Meter, Metric, Task

MEAN_IOU = Metric("mean_iou", "mean IoU")
PIXEL_ACCURACY = Metric("pixel_accuracy", "pixel accuracy")
IOU = Metric("iou", "IoU")
NIOU = Metric("niou", "nIoU")
MEDIAN_FREQUENCY = "median_frequency"


class PixelCrossEntropy(gluon.Block):
    """Softmax cross-entropy (N,), in float32, of logits (N, K, H, W) and maps (N, H, W).

    An image's loss is the mean over its pixels that count, each with the weight of its true class;
    0 if there are none.  So it does not depend on the other images of a batch, nor on how many
    devices share them.

    Parameters
    ----------
    class_weights : list of float or str, optional
        One weight a class, used as they are; or ``median_frequency``, see
        :func:`median_frequency`.  By default all are 1.

    Raises
    ------
    UserError
        ``class_weights`` is something else.
    """

    def __init__(self, class_weights=None, **kwargs):
        super().__init__(**kwargs)
        if class_weights not in (None, MEDIAN_FREQUENCY):
            numbers = isinstance(class_weights, (list, tuple)) and all(
                isinstance(each, (int, float)) and not isinstance(each, bool) and 0 <= each < 1e6
                for each in class_weights
            )
            if not (numbers and any(class_weights)):
                raise UserError(
                    f"loss.class_weights must be {MEDIAN_FREQUENCY} or a list of numbers of at "
                    f"least 0, one per class, not {class_weights!r}"
                )
        self.class_weights = class_weights

    def prepare(self, dataset):
        """Check the weights against a data set's classes, or have them measured in training."""
        classes = len(dataset.class_names)
        if self.class_weights == MEDIAN_FREQUENCY:
            self._measure = functools.partial(median_frequency, dataset.train, classes)
        elif self.class_weights and len(self.class_weights) != classes:
            raise UserError(
                f"loss.class_weights has {len(self.class_weights)} numbers, but {dataset.name} has "
                f"{classes} classes"
            )

    def forward(self, logits, targets, images=None):
        logits, targets = _logits(logits).astype("float32"), targets.astype("float32")
        weights = targets != IGNORE
        counted = weights.sum(axis=(1, 2))
        if self.class_weights == MEDIAN_FREQUENCY:
            self.class_weights = self._measure()  # not before: an evaluation needs no weights
        if self.class_weights:
            by_class = mx.nd.array(self.class_weights, ctx=targets.context)
            weights = weights * by_class.take(targets, mode="clip")
        # With the classes last, softmax and its gradient take half the time.
        log_probabilities = logits.transpose((0, 2, 3, 1)).log_softmax()
        losses = -log_probabilities.pick(targets, mode="clip") * weights
        return losses.sum(axis=(1, 2)) / mx.nd.maximum(counted, 1)


class SoftIoU(gluon.Block):
    """``1 - (sum(p t) + s) / (sum(p + t - p t) + s)`` of each image, (N,), in float32.

    p is the probability of the target class, t is 1 on the target and 0 elsewhere, and the sums
    are over the pixels that count.  The s lets images without a target have a gradient.  Optimizing
    Intersection-Over-Union in Deep Neural Networks for Image Segmentation (Rahman and Wang, ISVC
    2016), equation 5, has s = 0.

    Parameters
    ----------
    smooth : float
        s, in pixels.

    Raises
    ------
    UserError
        ``smooth`` is not positive.
    """

    def __init__(self, smooth=1.0, **kwargs):
        super().__init__(**kwargs)
        if isinstance(smooth, bool) or not isinstance(smooth, (int, float)) or not 0 < smooth < 1e9:
            raise UserError(f"loss.smooth must be a positive number of pixels, not {smooth!r}")
        self.smooth = smooth

    def prepare(self, dataset):
        """Refuse a data set that does not have two classes."""
        if len(dataset.class_names) != 2:
            raise UserError(
                f"loss.name=soft_iou is for two classes, but {dataset.name} has "
                f"{len(dataset.class_names)}: take loss.name=cross_entropy"
            )

    def forward(self, logits, targets, images=None):
        logits, targets = _logits(logits).astype("float32"), targets.astype("float32")
        counts = targets != IGNORE
        probabilities = (logits[:, 1] - logits[:, 0]).sigmoid() * counts
        targets = targets * counts
        both = (probabilities * targets).sum(axis=(1, 2))
        either = (probabilities + targets).sum(axis=(1, 2)) - both
        return 1 - (both + self.smooth) / (either + self.smooth)


LOSSES = {"cross_entropy": PixelCrossEntropy, "soft_iou": SoftIoU}


def _logits(outputs):
    """(N, K, H, W) with K > 1: one output z stands for 0 and z."""
    if outputs.shape[1] > 1:
        return outputs
    return mx.nd.concat(mx.nd.zeros_like(outputs), outputs, dim=1)


def median_frequency(images, classes):
    """The weight of each class: the median of all frequencies / its own.

    A class's frequency is its share of the pixels that count, in the images where it is present.
    A class that is nowhere has weight 0.  Predicting Depth, Surface Normals and Semantic Labels
    (Eigen and Fergus, ICCV 2015), section 6.3.2.

    Parameters
    ----------
    images : ImageSet, MaskFolder or another image set
        Its targets are maps.
    classes : int
        Classes K.

    Returns
    -------
    list of float
    """
    counts = np.zeros((len(images), classes))
    for index, row in enumerate(counts):
        classes_there = images.take([index], None)[1][0]
        row += np.bincount(classes_there[classes_there != IGNORE], minlength=classes)
    among = (counts.sum(axis=1, keepdims=True) * (counts > 0)).sum(axis=0)
    frequencies = counts.sum(axis=0) / np.maximum(among, 1)
    there = frequencies > 0
    weights = np.zeros(classes)
    weights[there] = np.median(frequencies[there]) / frequencies[there]
    return weights.tolist()


class SegmentationMeter(Meter):
    """Counts the pixels of each true class (row) that were taken for each class (column).

    What is in neither the truth nor the prediction has no IoU: such a class leaves the mean IoU,
    and such an image leaves the nIoU.

    Parameters
    ----------
    class_names : sequence of str
        K names.  Of two classes, also the target's IoU and nIoU are measured.
    """

    def __init__(self, class_names):
        self.class_names = class_names
        self.binary = len(class_names) == 2
        classes = len(class_names)
        of_images = {"iou_sum": (), "iou_images": ()} if self.binary else {}
        super().__init__(confusion=(classes, classes), **of_images)

    def measure(self, output, target):
        classes = len(self.class_names)
        predicted = predicted_classes(output).astype("float32")
        cells = target * classes + predicted + 1  # of the table; 0: does not count
        return {"confusion": (cells * (target != IGNORE)).astype("int32")}

    def absorb(self, name, values):
        shape = self.sums[name].shape
        for cells in values.reshape(len(values), -1):
            table = np.bincount(cells, minlength=self.sums[name].size + 1)[1:].reshape(shape)
            self.sums[name] += table
            union = table.sum() - table[0, 0]
            if self.binary and union:
                self.sums["iou_sum"] += table[1, 1] / union
                self.sums["iou_images"] += 1

    def metrics(self, images, sums):
        """Every metric, and ``class_iou``: class name -> IoU; None is what nothing says."""
        by_class = [None if np.isnan(iou) else float(iou) for iou in class_iou(sums["confusion"])]
        known = [iou for iou in by_class if iou is not None]
        metrics = {
            "mean_iou": _ratio(sum(known), len(known)),
            "pixel_accuracy": _ratio(sums["confusion"].trace(), sums["confusion"].sum()),
        }
        if self.binary:
            metrics["iou"] = by_class[1]
            metrics["niou"] = _ratio(sums["iou_sum"], sums["iou_images"])
        return {**metrics, "class_iou": dict(zip(self.class_names, by_class))}


def predicted_classes(outputs):
    """Classes (N, H, W) of logits (N, K, H, W); of one output, class 1 where it is positive."""
    return outputs[:, 0] > 0 if outputs.shape[1] == 1 else outputs.argmax(axis=1)


def class_iou(confusion):
    """(K,): intersection over union of each class of a table (K, K); NaN if it is nowhere."""
    both = confusion.diagonal()
    either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def _ratio(part, whole):
    return float(part / whole) if whole else None


class ClassMap(NamedTuple):
    """An image's classes, pixel by pixel."""

    classes: np.ndarray  # uint8 or int32 (H, W)
    class_names: Tuple[str, ...]

    def resized(self, height, width):
        """The map at another size: each pixel has the class of the nearest one."""
        rows, columns = (
            nearest(0, length, count) for length, count in zip(self.classes.shape, (height, width))
        )
        return self._replace(classes=self.classes[rows][:, columns])

    def pixels(self):
        """Name -> pixels, of the classes that are there, the largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=len(self.class_names))
        order = np.argsort(-counts, kind="stable")
        return {self.class_names[index]: int(counts[index]) for index in order if counts[index]}


@TASKS.register("segmentation")
class Segmentation(Task):
    """Logits (N, K, H, W) for maps of classes (N, H, W).

    ``loss.name`` is ``cross_entropy`` (the default) or, for two classes, ``soft_iou``, for which
    networks get one output.
    """

    key = "segmentation"
    dense = True
    metrics = (MEAN_IOU, PIXEL_ACCURACY)
    Loss = PixelCrossEntropy

    def __init__(self, dataset, loss=None):
        super().__init__(dataset, loss)
        if self.classes < 2:
            raise UserError(
                f"{dataset.name} has {self.classes} class: two are the fewest to tell apart"
            )
        self.loss.prepare(dataset)
        if self.classes == 2:
            self.metrics = (*self.metrics, IOU, NIOU)

    @classmethod
    def make_loss(cls, options):
        options = dict(options)
        name = options.pop("name", "cross_entropy")
        if name not in LOSSES:
            raise UserError(
                f"loss.name must be {' or '.join(LOSSES)}, not {name!r}{suggest(name, LOSSES)}"
            )
        return super().make_loss(options, LOSSES[name])

    @property
    def outputs(self):
        return 1 if isinstance(self.loss, SoftIoU) else self.classes

    def used_outputs(self, outputs):
        if outputs == 1 and self.classes == 2:
            return 1
        if outputs > self.classes:
            raise UserError(
                f"the network has {outputs} outputs for each pixel, but there are {self.classes} "
                "classes"
            )
        return self.classes

    @property
    def test_loss(self):
        """Without the weights of classes."""
        return self.loss if isinstance(self.loss, SoftIoU) else PixelCrossEntropy()

    def meter(self, detailed=False):
        return SegmentationMeter(self.class_names)

    def per_class(self, sums):
        confusion = sums["confusion"]
        rows = zip(
            self.class_names, confusion.sum(axis=1), confusion.diagonal(), class_iou(confusion)
        )
        return [
            {
                "class": name,
                "pixels": int(pixels),
                "correct": int(correct),
                "accuracy": float(correct / pixels) if pixels else float("nan"),
                "iou": float(iou),
            }
            for name, pixels, correct, iou in rows
        ]

    @staticmethod
    def decode(outputs, class_names, top=5):
        """For each image its :class:`ClassMap`."""
        classes = predicted_classes(outputs)
        kind = "uint8" if len(class_names) <= 256 else "int32"
        return [ClassMap(each.astype(kind), tuple(class_names)) for each in classes]

    @staticmethod
    def describe(decoded):
        """The classes' shares of the pixels."""
        shares = decoded.pixels().items()
        return ", ".join(f"{name} {count / decoded.classes.size:.1%}" for name, count in shares)

    @staticmethod
    def record(decoded):
        height, width = decoded.classes.shape
        return {"width": width, "height": height, "pixels": decoded.pixels()}
