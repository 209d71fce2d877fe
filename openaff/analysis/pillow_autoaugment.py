"""AutoAugment image by image with Pillow: the yardstick of benchmarks, the oracle of tests."""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ..data.autoaugment import OPERATIONS as TABLE
from ..data.autoaugment import POLICIES


def _affine(image, fill, *matrix):
    return image.transform(image.size, Image.AFFINE, matrix, Image.NEAREST, fillcolor=fill)


# Name -> operation(image, magnitude, fill), the magnitudes as in autoaugment.OPERATIONS.
OPERATIONS = {
    "ShearX": lambda i, m, fill: _affine(i, fill, 1, m, 0, 0, 1, 0),
    "ShearY": lambda i, m, fill: _affine(i, fill, 1, 0, 0, m, 1, 0),
    "TranslateX": lambda i, m, fill: _affine(i, fill, 1, 0, m * i.width, 0, 1, 0),
    "TranslateY": lambda i, m, fill: _affine(i, fill, 1, 0, 0, 0, 1, m * i.height),
    "Rotate": lambda i, m, fill: i.rotate(m, Image.NEAREST, fillcolor=fill),
    "AutoContrast": lambda i, m, fill: ImageOps.autocontrast(i),
    "Invert": lambda i, m, fill: ImageOps.invert(i),
    "Equalize": lambda i, m, fill: ImageOps.equalize(i),
    "Solarize": lambda i, m, fill: ImageOps.solarize(i, m),
    "Posterize": lambda i, m, fill: ImageOps.posterize(i, round(m)),
    "Contrast": lambda i, m, fill: ImageEnhance.Contrast(i).enhance(1 + m),
    "Color": lambda i, m, fill: ImageEnhance.Color(i).enhance(1 + m),
    "Brightness": lambda i, m, fill: ImageEnhance.Brightness(i).enhance(1 + m),
    "Sharpness": lambda i, m, fill: ImageEnhance.Sharpness(i).enhance(1 + m),
}


class PillowAutoAugment:
    """A randomly drawn sub-policy applied to one image, by numpy's global random state."""

    def __init__(self, policy="cifar10", fill=(128, 128, 128)):
        self.policy = POLICIES[policy]
        self.fill = fill

    def __call__(self, image):
        """uint8 (H, W, 3) -> the same."""
        image = Image.fromarray(image)
        chosen = self.policy[np.random.randint(len(self.policy))]
        for name, probability, level in (chosen[:3], chosen[3:]):
            if np.random.random() < probability:
                _, (low, high), signed = TABLE[name]
                magnitude = low + (high - low) * level / 9
                if signed and np.random.random() < 0.5:
                    magnitude = -magnitude
                image = OPERATIONS[name](image, magnitude, self.fill)
        return np.asarray(image)
