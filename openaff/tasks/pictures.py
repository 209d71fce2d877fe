"""Pictures of class maps: indexed PNGs, and maps laid over photographs."""

import numpy as np
from PIL import Image

from ..data import DATASETS
from ..data.transforms import IGNORE

IGNORED = (255, 255, 255)  # the colour of pixels that do not count


def class_colours(dataset, count):
    """The colours of ``count`` classes, uint8 (count, 3), RGB.

    They are the data set's own or, where it has none or is not known, those of PASCAL VOC: the bits
    of a class's number, three by three, are the high bits of red, green and blue.

    Parameters
    ----------
    dataset : str or None
        A key of :data:`~openaff.data.DATASETS`.
    count : int
        Classes.
    """
    own = DATASETS[dataset].colours if dataset in DATASETS else None
    if own and len(own) == count:
        return np.array(own, "uint8")
    colours = np.zeros((count, 3), "uint8")
    numbers = np.arange(count)
    for bit in range(24):
        colours[:, bit % 3] |= ((numbers >> bit & 1) << 7 - bit // 3).astype("uint8")
    return colours


def indexed(classes, colours):
    """A PIL image with a palette, whose pixels are the classes (H, W), to be saved as PNG.

    Pixels with IGNORE have the index 255.  There are at most 255 classes.
    """
    image = Image.fromarray(np.where(classes == IGNORE, 255, classes).astype("uint8"))
    palette = np.full((256, 3), IGNORED, "uint8")
    palette[: len(colours)] = colours
    image.putpalette(palette.tobytes())  # which makes a grey image one of indices
    return image


def coloured(classes, colours):
    """uint8 (H, W, 3): each pixel in its class's colour."""
    return np.vstack([colours, [IGNORED]]).astype("uint8")[classes]  # IGNORE is the last one


def overlay(photo, classes, colours, strength=0.6):
    """A photograph, uint8 (H, W, 3), with the classes (H, W) laid over it; class 0 stays clear.

    ``strength`` is the colours' part of a pixel.
    """
    mixed = (1 - strength) * photo + strength * coloured(classes, colours)
    return np.where((classes == 0)[..., None], photo, np.rint(mixed).astype("uint8"))
