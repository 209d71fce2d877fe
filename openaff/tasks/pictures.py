"""Pictures of class maps: indexed PNGs, maps over photographs, predictions beside the truth."""

import mxnet as mx
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data import DATASETS
from ..data.transforms import IGNORE, Normalize
from ..utils.files import atomic_folder
from ..utils.progress import progress_bar

IGNORED = (255, 255, 255)  # the colour of pixels that do not count
WRONG, RIGHT = (214, 39, 40), (90, 90, 90)  # of pixels in a picture of errors
MARGIN = 6  # pixels between pictures
SMALLEST = 160  # width of a picture, to which smaller ones are enlarged


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
    """uint8 (H, W, 3): a photograph with the classes (H, W) laid over it; black ones stay clear.

    ``strength`` is the colours' part of a pixel.
    """
    painted = coloured(classes, colours)
    mixed = (1 - strength) * photo + strength * painted
    clear = (painted == 0).all(axis=-1, keepdims=True)
    return np.where(clear, photo, np.rint(mixed).astype("uint8"))


def comparison(photo, truth, predicted, class_names, colours):
    """Photograph, truth, prediction and errors side by side, with a legend.

    Parameters
    ----------
    photo : numpy.ndarray
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
    errors = np.array([RIGHT, WRONG, IGNORED], "uint8")[np.where(ignored, 2, truth != predicted)]
    pictures = {
        "image": photo,
        "truth": coloured(truth, colours),
        "prediction": coloured(predicted, colours),
        "errors": errors,
    }
    there = np.union1d(truth[~ignored], predicted)
    entries = [(class_names[index], tuple(map(int, colours[index]))) for index in there]
    entries += [("right", RIGHT), ("wrong", WRONG)]
    entries += [("does not count", IGNORED)] if ignored.any() else []
    return _sheet(pictures, entries)


def draw_predictions(net, dataset, task, folder, device, count=None):
    """Write a :func:`comparison` of each test image to a new folder, whole or not at all.

    Parameters
    ----------
    net : callable
        float (1, 3, H, W), scaled, on ``device`` -> logits (1, K, H, W).
    dataset : Dataset
        Its test split, mean and std.
    task : Task
        A dense one.
    folder : path-like
        Which must not exist.
    device : mx.Context
        Where the network is.
    count : int, optional
        Of the first so many images alone.
    """
    test, normalize = dataset.test, Normalize(dataset.mean, dataset.std)
    colours = class_colours(dataset.name, len(dataset.class_names))
    names = getattr(test, "names", None) or [f"{index:05}" for index in range(len(test))]
    with atomic_folder(folder) as temporary:
        for index, name in enumerate(progress_bar(names[:count], unit="picture")):
            images, maps = test.take([index], None)
            outputs = net(mx.nd.array(normalize(images), ctx=device)).asnumpy()
            (decoded,) = task.decode(outputs[:, : task.classes], dataset.class_names)
            picture = comparison(images[0], maps[0], decoded.classes, dataset.class_names, colours)
            picture.save(temporary / f"{name}.png")


def _sheet(pictures, entries):
    font = ImageFont.load_default()
    factor = max(1, SMALLEST // next(iter(pictures.values())).shape[1])
    pictures = {
        title: pixels.repeat(factor, 0).repeat(factor, 1) for title, pixels in pictures.items()
    }
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
