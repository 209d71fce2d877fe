"""AutoAugment's published policies on batches of images, with numpy alone.

Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019,
arXiv:1805.09501. Every operation gives the pixels that Pillow, the paper's choice, gives.

A policy is a list of 25 sub-policies; one is drawn uniformly for each image, and its two
operations are applied in order, each with its own probability. The levels 0..9 are spread evenly
over the range of magnitudes in the paper's Table 6. What the paper leaves open is settled here:

- A higher level is a stronger change. So levels go down the ranges printed as [4, 8] bits
  (Posterize) and [0, 256] (Solarize), and from 1, the identity, outwards in [0.1, 1.9] (enhancement
  factors). Bits are rounded to the nearest integer; no other magnitude is rounded.
- A symmetric range means a random sign, drawn for each image and operation.
- Translations reach 150 pixels in the paper's 331-pixel images. Here that is 150/331 of the image's
  own width or height, so that a level means the same at every size.
- Shears keep the top left corner in place, as Pillow's affine transform does, and rotations the
  centre. Resampling is nearest neighbour. Pixels from outside the image are ``fill``, by default
  mid-grey, which is near the mean of natural images.
- AutoContrast, Equalize and Invert have no magnitude, so their level has no effect.
- Cutout and SamplePairing are missing: the search included them, but neither policy uses them. The
  Cutout of the paper's CIFAR-10 training is a separate step after the policy.
"""

import numpy as np

from ..utils.errors import UserError, suggest

# The paper's Tables 7 and 9, a sub-policy being twice (operation, probability, level).
POLICIES = {
    "cifar10": (
        ("Invert", 0.1, 7, "Contrast", 0.2, 6),
        ("Rotate", 0.7, 2, "TranslateX", 0.3, 9),
        ("Sharpness", 0.8, 1, "Sharpness", 0.9, 3),
        ("ShearY", 0.5, 8, "TranslateY", 0.7, 9),
        ("AutoContrast", 0.5, 8, "Equalize", 0.9, 2),
        ("ShearY", 0.2, 7, "Posterize", 0.3, 7),
        ("Color", 0.4, 3, "Brightness", 0.6, 7),
        ("Sharpness", 0.3, 9, "Brightness", 0.7, 9),
        ("Equalize", 0.6, 5, "Equalize", 0.5, 1),
        ("Contrast", 0.6, 7, "Sharpness", 0.6, 5),
        ("Color", 0.7, 7, "TranslateX", 0.5, 8),
        ("Equalize", 0.3, 7, "AutoContrast", 0.4, 8),
        ("TranslateY", 0.4, 3, "Sharpness", 0.2, 6),
        ("Brightness", 0.9, 6, "Color", 0.2, 8),
        ("Solarize", 0.5, 2, "Invert", 0.0, 3),
        ("Equalize", 0.2, 0, "AutoContrast", 0.6, 0),
        ("Equalize", 0.2, 8, "Equalize", 0.6, 4),
        ("Color", 0.9, 9, "Equalize", 0.6, 6),
        ("AutoContrast", 0.8, 4, "Solarize", 0.2, 8),
        ("Brightness", 0.1, 3, "Color", 0.7, 0),
        ("Solarize", 0.4, 5, "AutoContrast", 0.9, 3),
        ("TranslateY", 0.9, 9, "TranslateY", 0.7, 9),
        ("AutoContrast", 0.9, 2, "Solarize", 0.8, 3),
        ("Equalize", 0.8, 8, "Invert", 0.1, 3),
        ("TranslateY", 0.7, 9, "AutoContrast", 0.9, 1),
    ),
    "imagenet": (
        ("Posterize", 0.4, 8, "Rotate", 0.6, 9),
        ("Solarize", 0.6, 5, "AutoContrast", 0.6, 5),
        ("Equalize", 0.8, 8, "Equalize", 0.6, 3),
        ("Posterize", 0.6, 7, "Posterize", 0.6, 6),
        ("Equalize", 0.4, 7, "Solarize", 0.2, 4),
        ("Equalize", 0.4, 4, "Rotate", 0.8, 8),
        ("Solarize", 0.6, 3, "Equalize", 0.6, 7),
        ("Posterize", 0.8, 5, "Equalize", 1.0, 2),
        ("Rotate", 0.2, 3, "Solarize", 0.6, 8),
        ("Equalize", 0.6, 8, "Posterize", 0.4, 6),
        ("Rotate", 0.8, 8, "Color", 0.4, 0),
        ("Rotate", 0.4, 9, "Equalize", 0.6, 2),
        ("Equalize", 0.0, 7, "Equalize", 0.8, 8),
        ("Invert", 0.6, 4, "Equalize", 1.0, 8),
        ("Color", 0.6, 4, "Contrast", 1.0, 8),
        ("Rotate", 0.8, 8, "Color", 1.0, 2),
        ("Color", 0.8, 8, "Solarize", 0.8, 7),
        ("Sharpness", 0.4, 7, "Invert", 0.6, 8),
        ("ShearX", 0.6, 5, "Equalize", 1.0, 9),
        ("Color", 0.4, 0, "Equalize", 0.6, 3),
        ("Equalize", 0.4, 7, "Solarize", 0.2, 4),
        ("Solarize", 0.6, 5, "AutoContrast", 0.6, 5),
        ("Invert", 0.6, 4, "Equalize", 1.0, 8),
        ("Color", 0.6, 4, "Contrast", 1.0, 8),
        ("Equalize", 0.8, 8, "Equalize", 0.6, 3),
    ),
}


def _affine(images, matrix, fill):
    """Take output pixel (x, y) from (ax + by + c, dx + ey + f), ``matrix`` = a, b, c, d, e, f."""
    count, height, width, _ = images.shape
    a, b, c, d, e, f = np.broadcast_arrays(*matrix)
    # As Pillow does: from the centre of the first pixel, in 16.16 fixed point.
    start_and_steps = np.stack([a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5])
    fixed = np.floor(start_and_steps * 65536 + 0.5).astype(np.int64)
    a, b, c, d, e, f = fixed[:, :, None, None]
    x, y = np.arange(width), np.arange(height)[:, None]
    column, row = (a * x + (b * y + c)) >> 16, (d * x + (e * y + f)) >> 16
    source = row * width + column + np.arange(count)[:, None, None] * (height * width)
    out = images.reshape(-1, 3).take(source, axis=0, mode="clip")
    out[(column < 0) | (column >= width) | (row < 0) | (row >= height)] = fill
    return out


def _rotate(images, degrees, fill):
    y, x = images.shape[1] / 2, images.shape[2] / 2
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)
    return _affine(images, matrix, fill)


def _posterize(images, bits, _fill):
    mask = 256 - 2 ** (8 - np.rint(bits).astype(int))
    return images & mask.astype(np.uint8)[:, None, None, None]


def _solarize(images, threshold, _fill):
    return np.where(images < threshold[:, None, None, None], images, ~images)


def _table_index(images):
    """Where each pixel's value is in a flattened (n, 3, 256) table."""
    count, _, width, _ = images.shape
    first = np.arange(0, count * 768, 256).reshape(count, 1, 1, 3)
    return images + np.tile(first, (1, 1, width, 1))  # whole rows: numpy's inner loop is long


def _auto_contrast(images, _magnitude, _fill):
    low = images.min(axis=1).min(axis=1)[:, :, None].astype(int)
    high = images.max(axis=1).max(axis=1)[:, :, None].astype(int)
    scale = 255.0 / np.maximum(high - low, 1)
    stretched = np.clip(np.arange(256) * scale + -low * scale, 0, 255)
    table = np.where(high > low, stretched, np.arange(256)).astype(np.uint8)
    return table.ravel()[_table_index(images)]


def _equalize(images, _magnitude, _fill):
    index = _table_index(images)
    histogram = np.bincount(index.ravel(), minlength=len(images) * 768).reshape(-1, 3, 256)
    below = histogram.cumsum(axis=2) - histogram
    high = images.max(axis=1).max(axis=1)[:, :, None].astype(int)
    step = np.take_along_axis(below, high, axis=2) // 255  # the brightest pixels do not count
    flattened = np.minimum((step // 2 + below) // np.maximum(step, 1), 255)
    table = np.where(step > 0, flattened, np.arange(256)).astype(np.uint8)
    return table.ravel()[index]


def _blend(start, images, change):
    """From ``start``, through ``images`` at change 0, by the factor 1 + change, truncated."""
    factor = (1 + change).astype(np.float32)[:, None, None, None]
    start = start.astype(np.float32)
    return np.clip(start + factor * (images - start), 0, 255).astype(np.uint8)


def _grey(images):
    """ITU-R 601-2 luma, (n, H, W, 1) int32, in Pillow's fixed point."""
    red, green, blue = np.moveaxis(images, 3, 0).astype(np.int32)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16)[..., None]


def _contrast(images, change, _fill):
    mean = _grey(images).mean(axis=(1, 2), keepdims=True)
    return _blend(np.floor(mean + 0.5), images, change)


def _sharpness(images, change, _fill):
    # Pillow's SMOOTH: 3x3, weight 5 in the centre and 1 around it, rounded; the border is kept.
    smooth = images.astype(np.uint16)
    rows = smooth[:, :-2] + smooth[:, 1:-1] + smooth[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    smooth[:, 1:-1, 1:-1] = (2 * (box + 4 * smooth[:, 1:-1, 1:-1]) + 13) // 26
    return _blend(smooth, images, change)


# Name -> (function, (magnitude at level 0, at level 9), random sign?). A function takes images,
# uint8 (n, H, W, 3), magnitudes, float64 (n,), and fill, uint8 (3,), and returns new images.
OPERATIONS = {
    "ShearX": (lambda x, m, fill: _affine(x, (1, m, 0, 0, 1, 0), fill), (0, 0.3), True),
    "ShearY": (lambda x, m, fill: _affine(x, (1, 0, 0, m, 1, 0), fill), (0, 0.3), True),
    "TranslateX": (
        lambda x, m, fill: _affine(x, (1, 0, m * x.shape[2], 0, 1, 0), fill),
        (0, 150 / 331),
        True,
    ),
    "TranslateY": (
        lambda x, m, fill: _affine(x, (1, 0, 0, 0, 1, m * x.shape[1]), fill),
        (0, 150 / 331),
        True,
    ),
    "Rotate": (_rotate, (0, 30), True),
    "AutoContrast": (_auto_contrast, (0, 0), False),
    "Invert": (lambda x, _m, _fill: ~x, (0, 0), False),
    "Equalize": (_equalize, (0, 0), False),
    "Solarize": (_solarize, (256, 0), False),
    "Posterize": (_posterize, (8, 4), False),
    "Contrast": (_contrast, (0, 0.9), True),
    "Color": (lambda x, m, _fill: _blend(_grey(x), x, m), (0, 0.9), True),
    "Brightness": (lambda x, m, _fill: _blend(np.zeros(1), x, m), (0, 0.9), True),
    "Sharpness": (_sharpness, (0, 0.9), True),
}


class AutoAugment:
    """Apply a randomly drawn sub-policy to each image of a batch.

    Parameters
    ----------
    policy : {"cifar10", "imagenet"}
        The policy found on reduced CIFAR-10 or ImageNet: the paper's Table 7 or 9.
    fill : sequence of 3 int
        Colour, 0..255, of the pixels that shears, translations and rotations bring in.

    Raises
    ------
    UserError
        If ``policy`` is unknown or ``fill`` is not such a colour.
    """

    def __init__(self, policy="cifar10", fill=(128, 128, 128)):
        if policy not in POLICIES:
            near, known = suggest(policy, POLICIES), ", ".join(POLICIES)
            raise UserError(f"unknown policy {policy!r}{near} (known: {known})")
        if np.shape(fill) != (3,) or not np.isin(fill, np.arange(256)).all():
            raise UserError(f"fill is {fill!r}: expected 3 integers in 0..255")
        columns = [np.array(column) for column in zip(*POLICIES[policy])]
        self._steps = columns[:3], columns[3:]
        self._fill = np.array(fill, np.uint8)

    def __call__(self, images, rng):
        """Augment copies of ``images``.

        Parameters
        ----------
        images : numpy.ndarray, uint8, (N, H, W, 3)
            RGB, with H and W at least 1; not modified.
        rng : numpy.random.Generator
            The only source of randomness; the number of draws depends on N alone.

        Returns
        -------
        numpy.ndarray, uint8, (N, H, W, 3)

        Raises
        ------
        UserError
            If ``images`` has another type or shape.
        """
        shape, is_array = np.shape(images), isinstance(images, np.ndarray)
        dtype = images.dtype if is_array else type(images).__name__
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape[1:]:
            raise UserError(f"images are {dtype} {shape}: expected uint8 (N, H, W, 3), H, W >= 1")
        chosen = rng.integers(len(self._steps[0][0]), size=len(images))
        draws = rng.random((2, len(images)))
        signs = rng.choice((-1, 1), size=(2, len(images)))
        out = images.copy()
        for (names, probability, level), draw, sign in zip(self._steps, draws, signs):
            names = np.where(draw < probability[chosen], names[chosen], "")
            for name in np.unique(names[names != ""]):
                function, (low, high), signed = OPERATIONS[name]
                index = np.flatnonzero(names == name)
                magnitude = low + (high - low) * level[chosen[index]] / 9
                if signed:
                    magnitude = magnitude * sign[index]
                out[index] = function(out[index], magnitude, self._fill)
        return out
