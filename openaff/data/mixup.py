"""Mixup: train on mixtures of two images and of their labels."""

import numpy as np

from ..utils.errors import UserError

ALPHAS = 1e-3, 1e3  # NumPy's beta(a, a) needs ever longer for smaller ones: at 1e-10 for ever


def one_hot(labels, classes):
    """Integer labels (N,) -> float32 (N, classes)."""
    return np.eye(classes, dtype="float32")[labels]


class Mixup:
    """Mix each image of a batch with another image of it; one mixing weight for the whole batch.

    mixup (Zhang et al., ICLR 2018), https://arxiv.org/abs/1710.09412.  The weight is drawn from
    Beta(alpha, alpha).  Image i is mixed with image N - 1 - i, which is a random one, because the
    loader shuffles.

    Parameters
    ----------
    alpha : float
        In ``ALPHAS``; with 1 all weights are equally likely, with small values images mix little.
    classes : int
        Classes K.
    """

    def __init__(self, alpha, classes):
        low, high = ALPHAS
        if not low <= alpha <= high:
            raise UserError(f"mixup's alpha must be in [{low:g}, {high:g}], not {alpha!r}")
        self.alpha = alpha
        self.classes = classes

    def draw(self, rng):
        """The mixing weight of a batch."""
        return float(rng.beta(self.alpha, self.alpha))

    def __call__(self, images, labels, rng):
        """float32 (N, 3, H, W) and integers (N,) -> mixed images, and float32 (N, K)."""
        weight = np.float32(self.draw(rng))
        targets = one_hot(labels, self.classes)
        mixed = (weight * each + (1 - weight) * each[::-1] for each in (images, targets))
        return tuple(mixed)
