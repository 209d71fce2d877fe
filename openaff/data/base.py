"""What a data set is to the rest of the project."""

from dataclasses import dataclass
from typing import Any, Tuple

import numpy as np

from ..utils.registry import Registry

DATASETS = Registry("data set")


@dataclass
class ImageSet:
    """Images of one size with their labels.

    ``images``: uint8 (N, H, W, 3), RGB; ``labels``: int32 (N,), counted from 0.
    """

    images: np.ndarray
    labels: np.ndarray
    costly = False  # to read: worth more processes

    def __len__(self):
        return len(self.labels)

    @property
    def image_shape(self):
        """(3, H, W)"""
        return (3,) + self.images.shape[1:3]

    def take(self, picked, rng):
        """Images and labels of some numbers; ``rng`` is for sets that crop at random."""
        return self.images[picked], self.labels[picked]


@dataclass
class Dataset:
    """A training and a test split, and what a result file has to say of them.

    ``train`` and ``test`` are image sets: in memory, of files, or of records.  ``mean`` and ``std``
    are per channel, for pixel values scaled to [0, 1].
    """

    name: str
    labels: str  # the label granularity, in words
    split: str  # which images are in which split, in words
    class_names: Tuple[str, ...]
    train: Any
    test: Any
    mean: Tuple[float, float, float]
    std: Tuple[float, float, float]


def load_dataset(config):
    """The :class:`Dataset` that a :class:`~openaff.training.config.DataConfig` names.

    Raises
    ------
    UserError
        An unknown name, or files that are missing, truncated or of another content.
    """
    return DATASETS[config.name](config)
