"""What the rest of openaff needs to know about a data set."""

from dataclasses import dataclass
from typing import Any, Callable, Optional, Tuple

import numpy as np

from ..utils.errors import UserError
from ..utils.labels import check_names
from ..utils.registry import Registry

DATASETS = Registry("data set")  # key -> DatasetInfo


@dataclass(frozen=True)
class Labels:
    """One granularity of a data set's labels."""

    key: str  # what configurations and result files call it, such as "fine"
    classes: Optional[int]  # None: depends on the files
    words: str  # for people, such as "fine (100 classes)"; {} stands for the number of classes
    names: Optional[Tuple[str, ...]] = None  # of the classes, where they do not depend on the files


@dataclass(frozen=True)
class DatasetInfo:
    """What we know about a data set before we read its files."""

    key: str
    title: str  # for people, such as "CIFAR-100"
    load: Callable  # load(config) -> Dataset
    task: str  # a key of openaff.tasks.TASKS
    labels: Tuple[Labels, ...]  # the first one is the default
    image_shape: Tuple[int, int, int]  # (3, H, W), by default
    settings: Tuple[str, ...]  # of DataConfig: the ones that only some data sets have
    mean: Optional[Tuple[float, float, float]] = None  # of pixel values in [0, 1]; None: measured
    std: Optional[Tuple[float, float, float]] = None
    crop_ratio: Optional[float] = None  # photographs: size of the centre crop / short side
    colours: Optional[Tuple[Tuple[int, int, int], ...]] = None  # of the classes in pictures, RGB
    tested_on: str = "test"  # the split that networks are tested on, in words

    def granularity(self, key=None):
        """The :class:`Labels` with this key, by default the first ones."""
        for labels in self.labels:
            if key in (None, labels.key):
                return labels
        known = " or ".join(labels.key for labels in self.labels)
        raise UserError(f"data.labels must be {known}, not {key!r}")

    def input_shape(self, config):
        """(3, H, W) that a :class:`~openaff.data.config.DataConfig` asks for, without the files.

        A dense data set's images have sizes of their own; this is a usual one.
        """
        channels, height, width = self.image_shape
        scale = (config.image_size or min(height, width)) / min(height, width)
        return (channels, round(height * scale), round(width * scale))


def register_dataset(key, **facts):
    """Decorator that registers a loader, ``load(config) -> Dataset``, as a :class:`DatasetInfo`."""

    def add(load):
        DATASETS.register(key)(DatasetInfo(key, load=load, **facts))
        return load

    return add


@dataclass
class ImageSet:
    """Images of one size in memory, with their targets.

    ``images``: uint8 (N, H, W, 3), RGB; ``targets``: integers, labels (N,) or (N, K), or maps
    (N, H, W).  Classes count from 0; :data:`~openaff.data.transforms.IGNORE` marks pixels that do
    not count.
    """

    images: np.ndarray
    targets: np.ndarray
    costly = False  # to read; True: worth more workers

    def __len__(self):
        return len(self.targets)

    @property
    def image_shape(self):
        """(3, H, W)"""
        return (3,) + self.images.shape[1:3]

    def take(self, picked, rng):
        """Images and targets at the indices ``picked``; ``rng`` is for sets that crop at random."""
        return self.images[picked], self.targets[picked]


@dataclass
class Dataset:
    """A training and a test split, and the facts about them that result files state.

    ``train`` and ``test`` are image sets: in memory, of files, or of records.  They have a length,
    ``image_shape``, ``costly`` and ``take(picked, rng)``, see :class:`ImageSet`.  If images have
    different sizes, they also have ``sizes``, a list of (H, W), and ``take`` gives lists of arrays
    where those picked differ.  ``mean`` and ``std`` are per
    channel, for pixel values scaled to [0, 1].
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

    def test_images(self):
        """The test split; a :class:`~openaff.UserError` where the files have none."""
        if self.test is None:
            raise UserError(f"{self.name}: there are no validation images")
        return self.test


def load_dataset(config):
    """The :class:`Dataset` that a :class:`~openaff.data.config.DataConfig` names.

    Raises
    ------
    UserError
        The name is unknown, or files are missing, truncated or not what they should be; see also
        :func:`~openaff.utils.labels.check_names`.
    """
    info = DATASETS[config.name]
    dataset = info.load(config)
    check_names(dataset.class_names, f"the data set {config.name}")
    dataset.task = info.task
    return dataset
