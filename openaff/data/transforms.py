"""Augmentation of whole batches in numpy: pad, crop, flip, colours, normalise.

A sample is an image and its target.  Transforms take and return both: images, uint8 (N, H, W, 3),
and targets: labels (N,) or (N, K), or maps (N, H, W).  Maps move with their images.
"""

import numpy as np

from ..utils.errors import UserError
from .autoaugment import AutoAugment
from .base import DATASETS

CROP_PADDING = 4  # pixels, by default
IGNORE = -1  # in a map: this pixel does not count
LUMA = np.array([0.299, 0.587, 0.114], "float32")  # ITU-R BT.601


class Normalize:
    """``(x / 255 - mean) / std`` per channel: uint8 (N, H, W, 3) -> float32 (N, 3, H, W)."""

    def __init__(self, mean, std):
        self.scale = (1 / (255 * np.asarray(std, "float32"))).reshape(3, 1, 1)
        self.shift = (np.asarray(mean, "float32") / np.asarray(std, "float32")).reshape(3, 1, 1)

    def __call__(self, images):
        out = np.empty(images.shape[:1] + (3,) + images.shape[1:3], "float32")
        np.multiply(images.transpose(0, 3, 1, 2), self.scale, out=out)
        out -= self.shift
        return out


class RandomCrop:
    """Pad, then crop the original size at random; images are padded with 0, maps with IGNORE.

    Parameters
    ----------
    padding : int
        Pixels on every side.
    """

    def __init__(self, padding):
        self.padding = padding

    def __call__(self, images, targets, rng):
        top, left = rng.integers(0, 2 * self.padding + 1, size=(2, len(images)))
        if targets.ndim > 2:
            targets = self._crop(targets, top, left, IGNORE)
        return self._crop(images, top, left, 0), targets

    def _crop(self, maps, top, left, fill):
        _, height, width = maps.shape[:3]
        sides = [(0, 0), (self.padding,) * 2, (self.padding,) * 2, (0, 0)][: maps.ndim]
        padded = np.pad(maps, sides, constant_values=fill)
        out = np.empty_like(maps)
        for index, (y, x) in enumerate(zip(top, left)):  # copies of slices beat one large gather
            out[index] = padded[index, y : y + height, x : x + width]
        return out


class RandomFlip:
    """Mirror each sample left to right with probability 1/2."""

    def __call__(self, images, targets, rng):
        flip = rng.random(len(images)) < 0.5
        if targets.ndim > 2:
            targets = np.where(flip[:, None, None], targets[:, :, ::-1], targets)
        return np.where(flip[:, None, None, None], images[:, :, ::-1], images), targets


class ColorJitter:
    """Change brightness, contrast and saturation, in this order, by factors in [1 - m, 1 + m].

    Parameters
    ----------
    strength : float
        Largest relative change m.
    """

    def __init__(self, strength):
        self.strength = strength

    def __call__(self, images, targets, rng):
        factors = rng.uniform(1 - self.strength, 1 + self.strength, (3, len(images), 1, 1, 1))
        brightness, contrast, saturation = factors.astype("float32")
        pixels = images * brightness
        grey = pixels @ LUMA
        pixels = (
            contrast * pixels + (1 - contrast) * grey.mean(axis=(1, 2), keepdims=True)[..., None]
        )
        pixels = saturation * pixels + (1 - saturation) * (pixels @ LUMA)[..., None]
        return np.clip(np.rint(pixels), 0, 255).astype("uint8"), targets


class PCANoise:
    """Noise along the principal components of ImageNet's colours.

    ImageNet Classification with Deep Convolutional Neural Networks (Krizhevsky et al., NIPS 2012),
    section 4.1.

    Parameters
    ----------
    deviation : float
        Standard deviation of the three components' random factors; 0.1 in the paper.
    """

    # of pixel values in [0, 255]: the components' deviations, and the components as columns
    DEVIATIONS = np.array([55.46, 4.794, 1.148], "float32")
    COMPONENTS = np.array(
        [
            [-0.5675, 0.7192, 0.4009],
            [-0.5808, -0.0045, -0.8140],
            [-0.5836, -0.6948, 0.4203],
        ],
        "float32",
    )

    def __init__(self, deviation):
        self.deviation = deviation

    def __call__(self, images, targets, rng):
        factors = rng.normal(0, self.deviation, (len(images), 3)).astype("float32")
        shift = (factors * self.DEVIATIONS) @ self.COMPONENTS.T
        return np.clip(np.rint(images + shift[:, None, None]), 0, 255).astype("uint8"), targets


class ImagesOnly:
    """A transform of images alone, ``transform(images, rng)``, for targets that are labels.

    Raises
    ------
    UserError
        The targets are maps, which would have to move with the images.
    """

    def __init__(self, transform):
        self.transform = transform

    def __call__(self, images, targets, rng):
        if targets.ndim > 2:
            name = type(self.transform).__name__
            raise UserError(f"{name} moves images, but not targets with a value for each pixel")
        return self.transform(images, rng), targets


class Compose:
    """Apply several transforms in order, with one random generator."""

    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, images, targets, rng):
        for transform in self.transforms:
            images, targets = transform(images, targets, rng)
        return images, targets


def _crop_padding(config):
    if "crop_padding" not in DATASETS[config.name].settings:  # such as photographs
        return 0
    return CROP_PADDING if config.crop_padding is None else config.crop_padding


def training_transform(config):
    """The augmentation of training batches for a :class:`~openaff.data.DataConfig`."""
    transforms = [ImagesOnly(AutoAugment(config.autoaugment))] if config.autoaugment else []
    for transform, strength in (
        (RandomCrop, _crop_padding(config)),
        (ColorJitter, config.jitter),
        (PCANoise, config.pca_noise),
    ):
        if strength:
            transforms.append(transform(strength))
    if config.flip:
        transforms.append(RandomFlip())
    return Compose(transforms)


def describe_augmentation(config):
    """The augmentation of a :class:`~openaff.data.DataConfig` in words, as a list."""
    info = DATASETS[config.name]
    parts = []
    if info.crop_ratio:  # photographs are cropped as they are read
        parts.append("random resized crop")
    elif "crop_padding" in info.settings:
        parts.append(f"crop padding {_crop_padding(config)}")
    parts.append("flip" if config.flip else "no flip")
    if config.jitter:
        parts.append(f"colour jitter {config.jitter:g}")
    if config.pca_noise:
        parts.append(f"PCA noise {config.pca_noise:g}")
    if config.autoaugment:
        parts.append(f"AutoAugment {config.autoaugment}")
    if config.mixup_alpha:
        off = config.mixup_off_epochs or 0
        parts.append(f"mixup {config.mixup_alpha:g}, off in the last {off} epochs")
    return parts
