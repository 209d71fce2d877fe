"""Pictures of class maps: indexed masks, overlays, and predictions beside the truth."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.transforms import IGNORE

OPACITY = 0.55  # of an overlay's colours
MARGIN = 6  # pixels between the pictures of a row
WRONG, RIGHT = (214, 39, 40), (235, 235, 235)
IGNORED = (0, 0, 0)


def class_colours(count, known=None):
    """RGB colours of classes, uint8 (count, 3).

    Parameters
    ----------
    count : int
        Classes.
    known : sequence of (int, int, int), optional
        The data set's own colours.  By default class 0 is dark grey, and the others have different
        hues.
    """
    if known is not None:
        return np.array(known, "uint8")
    hues = [(index * 0.381966) % 1 for index in range(max(count - 1, 0))]  # far apart in order
    others = [
        [round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.75, 0.6 + 0.4 * (index % 2))]
        for index, hue in enumerate(hues, start=1)
    ]
    return np.array([(64, 64, 64), *others][:count], "uint8")


def indexed_mask(classes, colours):
    """A PIL image of palette indices, whose pixels are the class numbers.

    Parameters
    ----------
    classes : numpy.ndarray
        (H, W), of at most 256 classes.
    colours : numpy.ndarray
        uint8 (K, 3).
    """
    mask = Image.fromarray(classes.astype("uint8"))
    mask.putpalette(colours.tobytes() + bytes(3 * (256 - len(colours))))
    return mask


def overlay(image, classes, colours):
    """A PIL image in RGB: uint8 (H, W, 3), mixed with the colours of its pixels' classes."""
    painted = colours[np.maximum(classes, 0)]
    mixed = np.rint((1 - OPACITY) * image + OPACITY * painted).astype("uint8")
    return Image.fromarray(np.where((classes == IGNORE)[..., None], image, mixed))


def comparison(image, truth, predicted, class_names, colours):
    """Image, truth, prediction and errors side by side, with a legend.

    Parameters
    ----------
    image : numpy.ndarray
        uint8 (H, W, 3).
    truth, predicted : numpy.ndarray
        Classes (H, W); in the truth IGNORE where a pixel does not count.
    class_names : sequence of str
        K names.  The legend has those that are there.
    colours : numpy.ndarray
        uint8 (K, 3).

    Returns
    -------
    PIL.Image.Image
    """
    ignored = truth == IGNORE
    painted = np.where(ignored[..., None], np.uint8(IGNORED), colours[np.maximum(truth, 0)])
    errors = np.where((truth != predicted)[..., None], np.uint8(WRONG), np.uint8(RIGHT))
    errors = np.where(ignored[..., None], np.uint8(IGNORED), errors)
    pictures = {
        "image": image,
        "truth": painted,
        "prediction": np.asarray(overlay(image, predicted, colours)),
        "errors": errors,
    }
    there = np.union1d(truth[~ignored], predicted)
    entries = [(class_names[index], tuple(map(int, colours[index]))) for index in there]
    entries += [("wrong", WRONG)] + ([("does not count", IGNORED)] if ignored.any() else [])
    return _sheet(pictures, entries)


def _sheet(pictures, entries):
    font = ImageFont.load_default()
    height, width = next(iter(pictures.values())).shape[:2]
    line = font.getbbox("Ag")[3] + MARGIN
    total = len(pictures) * (width + MARGIN) + MARGIN
    places, x, y = [], MARGIN, 0
    for name, _ in entries:
        length = int(font.getlength(name)) + 2 * line
        if x + length > total and x > MARGIN:
            x, y = MARGIN, y + line
        places.append((x, y))
        x += length
    below = line + height + 2 * MARGIN
    sheet = Image.new("RGB", (total, below + y + line + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (title, pixels) in enumerate(pictures.items()):
        left = MARGIN + index * (width + MARGIN)
        draw.text((left, MARGIN // 2), title, "black", font)
        sheet.paste(Image.fromarray(pixels), (left, line))
    for (name, colour), (x, y) in zip(entries, places):
        box = (x, below + y, x + line - MARGIN, below + y + line - MARGIN)
        draw.rectangle(box, colour, "black")
        draw.text((x + line, below + y), name, "black", font)
    return sheet
