"""The settings of data: which data set, how it is augmented, who makes the batches."""

from dataclasses import dataclass
from typing import Optional

from ..utils.configs import Section, require
from ..utils.errors import UserError
from .autoaugment import POLICIES
from .base import DATASETS


@dataclass
class DataConfig(Section):
    """Which data set is read, and how; :meth:`check` refuses what cannot be or has no effect."""

    name: str = "digits"  # or cifar10, cifar100, imagenet, images (your own class folders)
    root: Optional[str] = None  # folder of the files; CIFAR's is Gluon's own by default
    labels: Optional[str] = None  # cifar100: fine (the default, 100 classes) or coarse (20)
    download: bool = False  # fetch what is missing into root
    batch_size: int = 128  # images per device and step
    crop_padding: Optional[int] = None  # pixels of zeros around a small image before cropping; 4
    image_size: Optional[int] = None  # pixels of a photograph's square; 224
    crop_ratio: Optional[float] = None  # evaluation: centre's share of the short side; 0.875
    jitter: Optional[float] = None  # photographs: change of brightness, contrast, saturation
    pca_noise: Optional[float] = None  # photographs: noise along the colours' components
    flip: bool = True  # mirror half of the training images
    autoaugment: Optional[str] = None  # a published policy: cifar10 or imagenet
    mixup_alpha: float = 0.0  # mixup's Beta(alpha, alpha); 0: no mixup
    mixup_off_epochs: Optional[int] = None  # last epochs without mixup, 0 by default
    workers: Optional[int] = None  # processes that make batches ahead; null: by the machine

    COMMON = ("name", "batch_size", "flip", "workers")  # the others are for some data sets only

    def check(self, prefix="data."):
        """Refuse values out of range, and settings without effect on this data set.

        ``prefix``: what messages put before a setting's name.
        """
        super().check(prefix)
        at_least_0 = ("crop_padding", "jitter", "pca_noise", "workers", "mixup_alpha")
        require(
            prefix,
            ("batch_size", self.batch_size >= 1, "must be at least 1"),
            self.one_of("name", tuple(DATASETS)),
            *((key, (getattr(self, key) or 0) >= 0, "must not be negative") for key in at_least_0),
            ("jitter", (self.jitter or 0) < 1, "must be less than 1"),
            ("image_size", self.image_size is None or self.image_size >= 1, "must be positive"),
            (
                "crop_ratio",
                self.crop_ratio is None or 0 < self.crop_ratio <= 1,
                "must be in (0, 1]",
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
                raise UserError(f"{prefix}{key} has an effect on {', '.join(names)} only")
        if self.labels is not None:
            DATASETS[self.name].granularity(self.labels)
