"""The data settings: which data set, how it is augmented, and how batches are prefetched."""

from dataclasses import dataclass
from typing import List, Optional

from ..utils.configs import Section, require
from ..utils.descriptions import LARGEST_SIDE, SMALLEST_RATIO
from ..utils.errors import UserError
from ..utils.framework import most_processes
from .autoaugment import POLICIES
from .base import DATASETS
from .mixup import ALPHAS

MOST_PADDING = 1024

# Settings that change no result, but for the number of workers that read record files.
WHEREABOUTS = ("root", "download", "workers")


def without_whereabouts(values):
    """The values of a training's configuration, without the settings that change no result."""
    emptied = {"checkpoint_steps": None}
    for section, names in (("data", WHEREABOUTS), ("distillation", ("params",))):
        emptied[section] = {**(values.get(section) or {}), **dict.fromkeys(names)}
    return {**values, **emptied}


@dataclass
class DataConfig(Section):
    """Which data set to read, and how.  :meth:`check` rejects impossible and useless settings."""

    name: str = "digits"  # or cifar100, images (your own class folders), masks (your own), ...
    root: Optional[str] = None  # folder of the files; for CIFAR, Gluon's own by default
    labels: Optional[str] = None  # cifar100: fine (the default, 100 classes) or coarse (20)
    download: bool = False  # download missing files into root
    batch_size: int = 128  # images per device and step
    crop_padding: Optional[int] = None  # small images: pixels of zeros on every side, default 4
    image_size: Optional[int] = None  # photographs: pixels, default 224; masks: the short side
    crop_ratio: Optional[float] = None  # centre crop / short side, 0.875; photographs only
    jitter: Optional[float] = None  # brightness, contrast, saturation; not CIFAR, digits
    pca_noise: Optional[float] = None  # deviation of the colour noise; photographs, masks
    scale_range: Optional[List[float]] = None  # masks: random scale, smallest and largest factor
    crop_size: Optional[int] = None  # masks: side of the random square; null: whole images
    lists: Optional[str] = None  # masks: folder of the split lists, below root
    train_split: Optional[str] = None  # masks: train (the default) or trainval
    test_split: Optional[str] = None  # masks: test (the default) or val
    skip: Optional[List[str]] = None  # masks: names of images to leave out
    flip: bool = True  # mirror half of the training images
    autoaugment: Optional[str] = None  # a published policy: cifar10 or imagenet
    mixup_alpha: float = 0.0  # mixup with Beta(alpha, alpha); 0: no mixup
    mixup_off_epochs: Optional[int] = None  # no mixup in so many last epochs, default 0
    workers: Optional[int] = None  # processes that prefetch; null: chosen for this machine

    COMMON = ("name", "batch_size", "flip", "workers")  # the others are for some data sets only

    def check(self, prefix="data."):
        """Reject values out of range, and settings that have no effect on this data set.

        ``prefix`` stands before the names of settings in messages.
        """
        super().check(prefix)
        at_least_0 = ("crop_padding", "jitter", "pca_noise", "workers", "mixup_alpha")
        require(
            prefix,
            ("batch_size", self.batch_size >= 1, "must be at least 1"),
            self.one_of("name", tuple(DATASETS)),
            *((key, (getattr(self, key) or 0) >= 0, "must not be negative") for key in at_least_0),
            (
                "mixup_alpha",
                self.mixup_alpha == 0 or ALPHAS[0] <= self.mixup_alpha <= ALPHAS[1],
                "must be 0, or in [{:g}, {:g}]".format(*ALPHAS),
            ),
            (
                "workers",
                (self.workers or 0) <= most_processes(),
                f"must be at most {most_processes()} on this machine",
            ),
            ("jitter", (self.jitter or 0) < 1, "must be less than 1"),
            *(
                (
                    key,
                    getattr(self, key) is None or 1 <= getattr(self, key) <= LARGEST_SIDE,
                    f"must be 1 to {LARGEST_SIDE:,} pixels",
                )
                for key in ("image_size", "crop_size")
            ),
            (
                "crop_padding",
                (self.crop_padding or 0) <= MOST_PADDING,
                f"must be at most {MOST_PADDING} pixels",
            ),
            (
                "scale_range",
                self.scale_range is None or _is_range(self.scale_range),
                f"must be two increasing positive factors, such as [0.5, 2.0], not "
                f"{self.scale_range}",
            ),
            (
                "scale_range",
                self.scale_range is None or self.crop_size,
                f"has no effect without {prefix}crop_size",
            ),
            self.one_of("train_split", (None, "train", "trainval")),
            self.one_of("test_split", (None, "test", "val")),
            (
                "test_split",
                not (self.train_split == "trainval" and self.test_split == "val"),
                f"val cannot be tested on: {prefix}train_split=trainval trains on it",
            ),
            (
                "crop_ratio",
                self.crop_ratio is None or SMALLEST_RATIO <= self.crop_ratio <= 1,
                f"must be in [{SMALLEST_RATIO}, 1]",
            ),
            self.one_of("autoaugment", (None, *POLICIES)),
            (
                "mixup_off_epochs",
                self.mixup_off_epochs is None or self.mixup_alpha,
                f"has no effect without {prefix}mixup_alpha",
            ),
            ("mixup_off_epochs", (self.mixup_off_epochs or 0) >= 0, "must not be negative"),
        )
        for key in vars(self):
            if key in self.COMMON or getattr(self, key) in (None, False):
                continue
            if key not in DATASETS[self.name].settings:
                names = [name for name in DATASETS if key in DATASETS[name].settings]
                raise UserError(
                    f"{prefix}{key} has no effect on {self.name}, only on {', '.join(names)}"
                )
        if self.labels is not None:
            DATASETS[self.name].granularity(self.labels)


def _is_range(values):
    return len(values) == 2 and 0 < values[0] <= values[1]
