"""Data sets, and the batches made from them."""

# Each registers its data sets.
from . import digits, cifar, imagenet, scenes, camvid, masks  # noqa: F401,I001
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
