"""What a map explains: a number that is computed from a network's output for one image."""

import mxnet as mx
import numpy as np

from ...tasks.segmentation import predicted_classes
from ...utils.errors import UserError


class ClassifierOutputTarget:
    """The logit of a class.

    Parameters
    ----------
    category : int
        The class's number.

    Called with an image's output, NDArray (K,), it gives NDArray (1,).
    """

    def __init__(self, category):
        self.category = int(category)

    def __call__(self, output):
        _check(output, self.category, 1, "one output per class")
        return output[self.category]


class ClassifierOutputSoftmaxTarget(ClassifierOutputTarget):
    """The probability of a class."""

    def __call__(self, output):
        return super().__call__(output.softmax())


class SemanticSegmentationTarget:
    """The sum of a class's logits over some pixels.

    Parameters
    ----------
    category : int
        The class's number.  Of a network with one output, which stands for the logits 0 and z, the
        target is z (class 1) or -z (class 0).
    mask : array, optional
        (H, W), 1 or True where a pixel counts; by default those that the network takes for the
        class, wherever they are.

    Called with an image's output, NDArray (K, H, W), it gives NDArray (1,).
    """

    def __init__(self, category, mask=None):
        self.category = int(category)
        self.mask = None if mask is None else np.asarray(mask)

    def __call__(self, output):
        single = output.shape[0] == 1
        _check(output, 0 if single and self.category == 1 else self.category, 3, "maps of classes")
        if single:
            logits = output[0] if self.category else -output[0]
            predicted = logits > 0
        else:
            logits = output[self.category]
            predicted = output.argmax(axis=0) == self.category
        if self.mask is None:
            return (logits * predicted).sum()
        if self.mask.shape != logits.shape:
            raise UserError(
                "the mask is {}, but the network's output {}".format(
                    *("x".join(map(str, shape)) for shape in (self.mask.shape, logits.shape))
                )
            )
        return (logits * _like(self.mask, logits)).sum()


def predicted_targets(outputs):
    """For each image the target that stands for what the network says.

    Of logits (N, K) the largest one; of maps of logits (N, K, H, W) the class of most pixels.
    """
    values = outputs.asnumpy()
    if values.ndim == 2:
        return [ClassifierOutputTarget(row.argmax()) for row in values]
    classes = predicted_classes(values)
    return [SemanticSegmentationTarget(np.bincount(each.ravel()).argmax()) for each in classes]


def _check(output, category, dimensions, words):
    if output.ndim != dimensions:
        raise UserError(f"this target is for networks that give {words}")
    if not 0 <= category < output.shape[0]:
        raise UserError(f"the network has no class {category}: it has {output.shape[0]}, from 0 on")


def _like(values, array):
    """``values`` as an NDArray of the other one's kind."""
    return mx.nd.array(values, ctx=array.context, dtype=array.dtype)
