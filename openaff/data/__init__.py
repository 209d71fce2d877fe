"""Data sets, and their way into batches."""

from . import cifar, digits, imagenet  # noqa: F401,I001  (register their data sets)
from .base import DATASETS, Dataset, ImageSet, load_dataset

__all__ = ["DATASETS", "Dataset", "ImageSet", "load_dataset"]
