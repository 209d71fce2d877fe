"""Augmentation of whole batches in numpy: pad, crop, flip, normalise."""

import numpy as np

from .autoaugment import AutoAugment

CROP_PADDING = 4  # pixels, by default
LUMA = np.array([0.299, 0.587, 0.114], "float32")  # ITU-R BT.601


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


class ColorJitter:
    """Brightness, contrast and saturation, each by its own factor from [1 - m, 1 + m].

    uint8 in and out; the three in this order.

    Parameters
    ----------
    strength : float
        Largest relative change m.
    """

    def __init__(self, strength):
        self.strength = strength

    def __call__(self, images, rng):
        factors = rng.uniform(1 - self.strength, 1 + self.strength, (3, len(images), 1, 1, 1))
        brightness, contrast, saturation = factors.astype("float32")
        pixels = images * brightness
        grey = pixels @ LUMA
        pixels = (
            contrast * pixels + (1 - contrast) * grey.mean(axis=(1, 2), keepdims=True)[..., None]
        )
        pixels = saturation * pixels + (1 - saturation) * (pixels @ LUMA)[..., None]
        return np.clip(np.rint(pixels), 0, 255).astype("uint8")


class PCANoise:
    """Noise along the principal components of ImageNet's colours; uint8 in and out.

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

    def __call__(self, images, rng):
        factors = rng.normal(0, self.deviation, (len(images), 3)).astype("float32")
        shift = (factors * self.DEVIATIONS) @ self.COMPONENTS.T
        return np.clip(np.rint(images + shift[:, None, None]), 0, 255).astype("uint8")


class Compose:
    """One transform after another, all with one random generator."""

    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, images, rng=None):
        for transform in self.transforms:
            images = transform(images, rng)
        return images


def training_transform(dataset, config):
    """What a training batch goes through, by the :class:`~openaff.training.config.DataConfig`."""
    transforms = [AutoAugment(config.autoaugment)] if config.autoaugment else []
    padding = config.crop_padding
    if dataset.train.costly:  # photographs, which are cropped as they are read
        padding = 0
    if padding is None:
        padding = CROP_PADDING
    for transform, strength in (
        (RandomCrop, padding),
        (ColorJitter, config.jitter),
        (PCANoise, config.pca_noise),
    ):
        if strength:
            transforms.append(transform(strength))
    if config.flip:
        transforms.append(RandomFlip())
    return Compose(transforms + [Normalize(dataset.mean, dataset.std)])
