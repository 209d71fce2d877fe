"""Segmentation networks run at several scales, or tile by tile: objects that are called like one.

Both take float (N, 3, H, W) and give the logarithm of mean probabilities (N, K, H, W) or, of
networks with one output, its logit.  So they can wrap each other, and losses and meters take what
they give.
"""

import math

import mxnet as mx
import numpy as np

from ..utils.errors import UserError, positive_int
from .base import SMALLEST


class MultiScale:
    """The mean of a network's probabilities at several scales of the images, and mirrored.

    Images are resized bilinearly, and the probabilities back to the images' size.

    Parameters
    ----------
    net : callable
        float (N, 3, H, W) of any size -> logits (N, K, H, W).
    scales : sequence of float
        Factors of height and width.
    flip : bool
        Take also the mirror image at each scale.

    Raises
    ------
    UserError
        No scales, or some that are not positive.
    """

    def __init__(self, net, scales=(1.0,), flip=False):
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise UserError(f"scales are positive factors, such as 0.75, 1 and 1.25, not {scales}")
        self.net = net
        self.scales = scales
        self.flip = flip

    def __call__(self, images):
        height, width = images.shape[2:]
        views = []
        for scale in self.scales:
            scaled = _resize(images, max(1, round(scale * height)), max(1, round(scale * width)))
            views.append(_probabilities(self.net(scaled)))
            if self.flip:
                views.append(_probabilities(self.net(scaled.flip(axis=3))).flip(axis=3))
        mean = mx.nd.add_n(*[_resize(view, height, width) for view in views]) / len(views)
        return _logits(mean)


class Tiled:
    """A network that sees images square by square; where squares overlap, the mean counts.

    Squares are spread evenly over the image, and all have one size.  Along a side that is shorter
    than a square, they are as long as the side.

    Parameters
    ----------
    net : callable
        float (N, 3, H, W) -> logits (N, K, H, W).
    tile : int
        Pixels of a square's side.
    overlap : int, optional
        Pixels that neighbours share at least, by default a quarter of a side.

    Raises
    ------
    UserError
        ``tile`` is not positive, or ``overlap`` not in [0, tile).
    """

    def __init__(self, net, tile, overlap=None):
        self.net = net
        self.tile = positive_int("tile", tile)
        self.overlap = tile // 4 if overlap is None else overlap
        if not 0 <= self.overlap < tile:
            raise UserError(f"overlap must be in [0, tile), not {overlap} of {tile} pixels")

    def __call__(self, images):
        rows, columns = (self.starts(length) for length in images.shape[2:])
        total, count = None, np.zeros(images.shape[2:], "float32")
        for y in rows:
            for x in columns:
                window = slice(y, y + self.tile), slice(x, x + self.tile)
                part = _probabilities(self.net(images[(slice(None), slice(None), *window)]))
                if total is None:
                    shape = part.shape[:2] + images.shape[2:]
                    total = mx.nd.zeros(shape, ctx=part.context)
                total[(slice(None), slice(None), *window)] += part
                count[window] += 1
        return _logits(total / mx.nd.array(count[None, None], ctx=total.context))

    def starts(self, length):
        """Where squares begin along a side of so many pixels."""
        if length <= self.tile:
            return [0]
        squares = math.ceil((length - self.overlap) / (self.tile - self.overlap))
        return np.rint(np.linspace(0, length - self.tile, squares)).astype(int).tolist()


def _resize(maps, height, width):
    if maps.shape[2:] == (height, width):
        return maps
    return mx.nd.contrib.BilinearResize2D(
        maps, height=height, width=width, mode="size", align_corners=False
    )


def _probabilities(logits):
    logits = logits.astype("float32")
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(axis=1)


def _logits(probabilities):
    """What has these probabilities: their logarithms or, of one output, its logit."""
    logarithms = mx.nd.maximum(probabilities, SMALLEST).log()
    if probabilities.shape[1] > 1:
        return logarithms
    return logarithms - mx.nd.maximum(1 - probabilities, SMALLEST).log()
