"""Data sets, and the batches made from them."""

from . import digits, cifar, imagenet  # noqa: F401,I001  (register their data sets)
from .base import DATASETS, Dataset, DatasetInfo, ImageSet, Labels, load_dataset, register_dataset
from .config import DataConfig

__all__ = [
    "DATASETS",
    "DataConfig",
    "Dataset",
    "DatasetInfo",
    "ImageSet",
    "Labels",
    "load_dataset",
    "register_dataset",
]
