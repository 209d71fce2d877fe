"""What a data set is to the rest of the project."""

from dataclasses import dataclass
from typing import Any, Callable, Optional, Tuple

import numpy as np

from ..utils.errors import UserError
from ..utils.registry import Registry

DATASETS = Registry("data set")  # key -> DatasetInfo


@dataclass(frozen=True)
class Labels:
    """One granularity of a data set's labels."""

    key: str  # what configurations and result files call it, such as "fine"
    classes: Optional[int]  # None: the files tell
    words: str  # for people, such as "fine (100 classes)"; {} stands for the number of classes


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before its files are read."""

    key: str
    title: str  # for people, such as "CIFAR-100"
    load: Callable  # load(config) -> Dataset
    task: str  # a key of openaff.tasks.TASKS
    labels: Tuple[Labels, ...]  # the first one by default
    image_shape: Tuple[int, int, int]  # (3, H, W), by default
    settings: Tuple[str, ...]  # of DataConfig, those that not all data sets have
    mean: Optional[Tuple[float, float, float]] = None  # of pixel values in [0, 1]; None: measured
    std: Optional[Tuple[float, float, float]] = None
    crop_ratio: Optional[float] = None  # photographs: the evaluated centre's share of a short side

    def granularity(self, key=None):
        """The :class:`Labels` of a key, by default the first."""
        for labels in self.labels:
            if key in (None, labels.key):
                return labels
        known = " or ".join(labels.key for labels in self.labels)
        raise UserError(f"data.labels must be {known}, not {key!r}")


def register_dataset(key, **facts):
    """Decorator: enter a loader, ``load(config) -> Dataset``, with its :class:`DatasetInfo`."""

    def add(load):
        DATASETS.register(key)(DatasetInfo(key, load=load, **facts))
        return load

    return add


@dataclass
class ImageSet:
    """Images in memory, of one size, with their targets.

    ``images``: uint8 (N, H, W, 3), RGB; ``targets``: int32, labels (N,) or maps (N, H, W), counted
    from 0, :data:`~openaff.data.transforms.IGNORE` where a pixel does not count.
    """

    images: np.ndarray
    targets: np.ndarray
    costly = False  # to read: worth more processes

    def __len__(self):
        return len(self.targets)

    @property
    def image_shape(self):
        """(3, H, W)"""
        return (3,) + self.images.shape[1:3]

    def take(self, picked, rng):
        """Images and targets of some numbers; ``rng`` is for sets that crop at random."""
        return self.images[picked], self.targets[picked]


@dataclass
class Dataset:
    """A training and a test split, and what a result file has to say of them.

    ``train`` and ``test`` are image sets: in memory, of files, or of records.  They have a length,
    ``image_shape``, ``costly`` and ``take(picked, rng)``, see :class:`ImageSet`; where images have
    different sizes, also ``sizes``, a list of (H, W).  ``mean`` and ``std`` are per channel, for
    pixel values scaled to [0, 1].
    """

    name: str
    labels: str  # the label granularity, in words
    split: str  # which images are in which split, in words
    class_names: Tuple[str, ...]
    train: Any
    test: Any
    mean: Tuple[float, float, float]
    std: Tuple[float, float, float]
    granularity: str = "classes"  # the labels' key
    task: str = "classification"  # a key of openaff.tasks.TASKS


def load_dataset(config):
    """The :class:`Dataset` that a :class:`~openaff.data.config.DataConfig` names.

    Raises
    ------
    UserError
        An unknown name, or files that are missing, truncated or of another content.
    """
    info = DATASETS[config.name]
    dataset = info.load(config)
    dataset.task = info.task
    return dataset
