"""Augmentation of whole batches: scale, pad, crop, flip, colours, normalise.

A sample is an image and its target.  Transforms take and return both: images, uint8 (N, H, W, 3),
and targets: labels (N,) or (N, K), or maps (N, H, W).  Maps move with their images.
"""

import numpy as np
from PIL import Image

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


class RandomScaleCrop:
    """Resize samples by random factors, then crop a square of each at random.

    Images are resized bilinearly, maps to the nearest pixel.  A sample that has become smaller than
    the square is put into it at random; around it is ``fill``, in the map IGNORE.

    Parameters
    ----------
    size : int
        Pixels of the square's side.
    scale_range : sequence of float
        The smallest and the largest factor; those in between are equally likely.
    fill : sequence of float
        The colour around small images, in [0, 1].
    """

    def __init__(self, size, scale_range=(1.0, 1.0), fill=(0.0, 0.0, 0.0)):
        self.size = size
        self.scale_range = scale_range
        self.fill = np.rint(255 * np.asarray(fill)).astype("uint8")

    def __call__(self, images, targets, rng):
        """uint8 (N, size, size, 3) and (N, size, size); both may be lists of samples of any size.

        Raises
        ------
        UserError
            The targets are not maps.
        """
        if targets[0].ndim != 2:
            raise UserError("data.crop_size crops targets with a value for each pixel, not labels")
        shape = (len(images), self.size, self.size)
        squares, maps = np.empty(shape + (3,), "uint8"), np.empty(shape, targets[0].dtype)
        factors = rng.uniform(*self.scale_range, shape[0])
        places = rng.random((shape[0], 2))
        for index, (image, target) in enumerate(zip(images, targets)):
            (out_y, y), (out_x, x) = (
                self._span(length, factors[index], place)
                for length, place in zip(target.shape, places[index])
            )
            height, width = (span.stop - span.start for span in (out_y, out_x))
            if min(height, width) < self.size:
                squares[index], maps[index] = self.fill, IGNORE
            squares[index, out_y, out_x] = Image.fromarray(image).resize(
                (width, height), Image.BILINEAR, (x[0], y[0], x[1], y[1])
            )
            rows, columns = nearest(*y, height), nearest(*x, width)
            maps[index, out_y, out_x] = target[rows][:, columns]
        return squares, maps

    def _span(self, length, factor, place):
        """Along one side: the pixels of the square to fill, and (start, end) in the sample."""
        resized = max(1, round(length * factor))
        offset = int(place * (abs(resized - self.size) + 1))
        if resized < self.size:
            return slice(offset, offset + resized), (0.0, float(length))
        step = length / resized
        end = min((offset + self.size) * step, length)
        return slice(0, self.size), (offset * step, end)


def nearest(start, end, count):
    """The indices of the pixels in the middle of ``count`` equal parts from start to end."""
    return (start + (np.arange(count) + 0.5) * ((end - start) / count)).astype(int)


class RandomFlip:
    """Mirror each sample left to right with probability 1/2."""

    def __call__(self, images, targets, rng):
        flip = rng.random(len(images)) < 0.5
        return _mirrored(images, flip), _mirrored(targets, flip) if targets.ndim > 2 else targets


def _mirrored(maps, picked):
    maps = maps.copy()
    maps[picked] = maps[picked, :, ::-1]
    return maps


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


def training_transform(config, mean=(0.0, 0.0, 0.0)):
    """The augmentation of training batches for a :class:`~openaff.data.DataConfig`.

    ``mean``: the data set's, the colour around images that are smaller than ``crop_size``.
    """
    transforms = [ImagesOnly(AutoAugment(config.autoaugment))] if config.autoaugment else []
    if config.crop_size:
        scale_range = config.scale_range or (1.0, 1.0)
        transforms.append(RandomScaleCrop(config.crop_size, scale_range, mean))
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
    if config.scale_range:
        parts.append("random scale {:g} to {:g}".format(*config.scale_range))
    if config.crop_size:
        parts.append(f"random crop {config.crop_size}")
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
