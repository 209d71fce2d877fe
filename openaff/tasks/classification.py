"""Image classification: one label per image, top-1 and top-5 accuracy."""

import mxnet as mx
import numpy as np
from mxnet import gluon

from ..utils.errors import UserError
from .base import SMALLEST, TASKS, Meter, Metric, Task

ACCURACY = Metric("accuracy", "accuracy")


class CrossEntropy(gluon.Block):
    """Softmax cross-entropy (N,), in float32, of logits (N, K), with label smoothing.

    The fraction ``label_smoothing`` of every target is spread over all classes alike: Rethinking
    the Inception Architecture (Szegedy et al., CVPR 2016), section 7.  Targets are class numbers
    (N,), or probabilities of classes (N, K).

    Raises
    ------
    UserError
        ``label_smoothing`` is not a number in [0, 1).
    """

    def __init__(self, label_smoothing=0.0, **kwargs):
        super().__init__(**kwargs)
        if isinstance(label_smoothing, bool) or not isinstance(label_smoothing, (int, float)):
            raise UserError(f"loss.label_smoothing must be a number, not {label_smoothing!r}")
        if not 0 <= label_smoothing < 1:
            raise UserError("loss.label_smoothing must be in [0, 1)")
        self.label_smoothing = label_smoothing

    def forward(self, logits, targets, images=None):
        log_probabilities = logits.astype("float32").log_softmax()
        targets = targets.astype("float32")
        if len(targets.shape) == 1:
            loss = -log_probabilities.pick(targets)
        else:
            loss = -(log_probabilities * targets).sum(axis=1)
        if self.label_smoothing:
            uniform = log_probabilities.mean(axis=1)
            loss = (1 - self.label_smoothing) * loss - self.label_smoothing * uniform
        return loss


class ClassificationMeter(Meter):
    """Correct images, by the largest and by the five largest logits.

    Where targets are probabilities of classes, an image counts as much as the predicted class's.

    Parameters
    ----------
    classes : int
        Classes K.
    detailed : bool
        Also count ``sums["confusion"]``, (K, K): how many images of a row's class were taken for a
        column's.
    """

    def __init__(self, classes, detailed=False):
        confusion = {"confusion": (classes, classes)} if detailed else {}
        super().__init__(correct=(), top5=(), **confusion)
        self.classes = classes

    def measure(self, output, target):
        order = output.topk(k=min(5, self.classes))  # (N, 5), the best first
        if len(target.shape) == 1:
            correct = order == target.expand_dims(1)
        else:
            correct = mx.nd.concat(
                *[target.pick(order[:, k]).expand_dims(1) for k in range(order.shape[1])], dim=1
            )
        measured = {"correct": correct[:, 0].sum(), "top5": correct.sum()}
        if "confusion" in self.sums:
            measured["confusion"] = mx.nd.stack(target, order[:, 0])  # (2, N)
        return measured

    def absorb(self, name, values):
        if name == "confusion":
            np.add.at(self.sums[name], tuple(values.astype(int)), 1)
        else:
            super().absorb(name, values)

    def metrics(self, images, sums):
        top5 = float(sums["top5"]) / images if self.classes >= 5 else None
        return {"accuracy": float(sums["correct"]) / images, "top5": top5}


@TASKS.register("classification")
class Classification(Task):
    """Logits (N, K) for class numbers (N,) or, under mixup, probabilities (N, K)."""

    key = "classification"
    metrics = (ACCURACY,)
    further = {"top5": "top-5 accuracy"}
    Loss = CrossEntropy

    @property
    def test_loss(self):
        return CrossEntropy()  # without smoothing

    def meter(self, detailed=False):
        return ClassificationMeter(self.classes, detailed)

    def per_class(self, sums):
        images, correct = sums["confusion"].sum(axis=1), sums["confusion"].diagonal()
        return [
            {
                "class": name,
                "images": int(count),
                "correct": int(right),
                "accuracy": right / count if count else float("nan"),
            }
            for name, count, right in zip(self.class_names, images, correct)
        ]

    @staticmethod
    def decode(outputs, class_names, top=5):
        """For each image its ``top`` most probable classes: lists of (name, probability)."""
        probabilities = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        best = np.argsort(-probabilities, axis=1)[:, :top]
        return [
            [(class_names[index], float(row[index])) for index in order]
            for row, order in zip(probabilities, best)
        ]

    @staticmethod
    def describe(decoded):
        return ", ".join(f"{label} {probability:.1%}" for label, probability in decoded)

    @staticmethod
    def record(decoded):
        return [{"label": label, "probability": probability} for label, probability in decoded]


class TenCrop:
    """A network that sees ten squares of every image, and gives the log of the mean probabilities.

    Parameters
    ----------
    net : callable
        float (N, 3, size, size) -> logits (N, K).
    size : int
        Pixels of a square's side.
    """

    def __init__(self, net, size):
        self.net = net
        self.size = size

    def __call__(self, images):
        crops = [self.net(crop).softmax() for crop in ten_crops(images, self.size)]
        return mx.nd.maximum(mx.nd.add_n(*crops) / len(crops), SMALLEST).log()


def ten_crops(images, size):
    """The corners and the centre of (N, 3, H, W) images, then their mirror images.

    Raises
    ------
    UserError
        The squares are larger than the images.
    """
    _, _, height, width = images.shape
    if size > min(height, width):
        raise UserError(f"squares of {size} pixels do not fit into images of {height} x {width}")
    bottom, right = height - size, width - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = [images[:, :, y : y + size, x : x + size] for y, x in corners]
    return crops + [crop.flip(axis=3) for crop in crops]
