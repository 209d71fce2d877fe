"""Augmentation of whole batches in numpy: pad, crop, flip, normalise."""

import numpy as np

from .autoaugment import AutoAugment


class Normalize:
    """``(x / 255 - mean) / std`` per channel: uint8 (N, H, W, 3) -> float32 (N, 3, H, W)."""

    def __init__(self, mean, std):
        self.scale = (1 / (255 * np.asarray(std, "float32"))).reshape(3, 1, 1)
        self.shift = (np.asarray(mean, "float32") / np.asarray(std, "float32")).reshape(3, 1, 1)

    def __call__(self, images, rng=None):
        out = np.empty(images.shape[:1] + (3,) + images.shape[1:3], "float32")
        np.multiply(images.transpose(0, 3, 1, 2), self.scale, out=out)
        out -= self.shift
        return out


class RandomCrop:
    """A random crop of the image's own size after padding with zeros; uint8 in and out.

    Parameters
    ----------
    padding : int
        Pixels on every side.
    """

    def __init__(self, padding):
        self.padding = padding

    def __call__(self, images, rng):
        count, height, width, _ = images.shape
        pad = self.padding
        top, left = rng.integers(0, 2 * pad + 1, size=(2, count))
        padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        out = np.empty_like(images)
        for index in range(count):  # a slice copy an image beats one gather over the batch
            y, x = top[index], left[index]
            out[index] = padded[index, y : y + height, x : x + width]
        return out


class RandomFlip:
    """Mirror each image left to right with probability 1/2; uint8 in and out."""

    def __call__(self, images, rng):
        flip = rng.random(len(images)) < 0.5
        return np.where(flip[:, None, None, None], images[:, :, ::-1], images)


class Compose:
    """One transform after another, all with one random generator."""

    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, images, rng=None):
        for transform in self.transforms:
            images = transform(images, rng)
        return images


def training_transform(dataset, config):
    """What a training batch goes through, by the :class:`~openaff.config.DataConfig`."""
    transforms = [AutoAugment(config.autoaugment)] if config.autoaugment else []
    if config.crop_padding:
        transforms.append(RandomCrop(config.crop_padding))
    if config.flip:
        transforms.append(RandomFlip())
    return Compose(transforms + [Normalize(dataset.mean, dataset.std)])
