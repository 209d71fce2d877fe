"""Mixup: training on mixtures of two images and of their labels."""

import numpy as np

from ..utils.errors import UserError


def one_hot(labels, classes):
    """Integer labels (N,) -> float32 (N, classes)."""
    return np.eye(classes, dtype="float32")[labels]


class Mixup:
    """Mix every image of a batch with another one of the batch, all in one proportion.

    mixup (Zhang et al., ICLR 2018), https://arxiv.org/abs/1710.09412: the proportion is drawn from
    Beta(alpha, alpha), once a batch; the partner of image i is image N - 1 - i, which the
    loader's shuffling makes a random one.

    Parameters
    ----------
    alpha : float
        Positive; 1 draws all proportions alike, small values mix little.
    classes : int
        Classes K.
    """

    def __init__(self, alpha, classes):
        if not alpha > 0:
            raise UserError(f"mixup's alpha must be positive, not {alpha!r}")
        self.alpha = alpha
        self.classes = classes

    def draw(self, rng):
        """A batch's proportion."""
        return float(rng.beta(self.alpha, self.alpha))

    def __call__(self, images, labels, rng):
        """float32 (N, 3, H, W) and integers (N,) -> the same mixed, and float32 (N, K)."""
        weight = np.float32(self.draw(rng))
        targets = one_hot(labels, self.classes)
        mixed = (weight * each + (1 - weight) * each[::-1] for each in (images, targets))
        return tuple(mixed)
