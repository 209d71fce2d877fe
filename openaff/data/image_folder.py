"""Read photographs of any size, and crop squares from them."""

import contextlib
import io
import math
import pathlib

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ..utils.errors import UserError, one_line
from ..utils.files import refuse_special

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
ORIENTATION = 0x0112  # the tag in EXIF
MEAN = tuple(value / 255 for value in (123.68, 116.779, 103.939))
STD = tuple(value / 255 for value in (58.393, 57.12, 57.375))


def read_photo(source, name=None):
    """Read a file as an upright RGB image; grey, palette, CMYK and transparent ones are converted.

    Parameters
    ----------
    source : path-like or bytes
        A file, or its content.
    name : str, optional
        The name in error messages, by default the path.

    Raises
    ------
    UserError
        The file is missing, empty, truncated, not an image, or too large, or it is a pipe.
    """
    name = name or source
    with reading(name):
        if not isinstance(source, bytes):
            refuse_special(source)
        content = source if isinstance(source, bytes) else pathlib.Path(source).read_bytes()
        if not content:
            raise UserError(f"{name} is empty")
        with Image.open(io.BytesIO(content)) as image:
            return upright_rgb(image, name)


def upright_rgb(image, name):
    """A PIL image of any mode as an upright one in RGB; :class:`UserError` for fractions."""
    if image.mode == "F":
        raise UserError(f"{name} holds floating-point numbers: save it with 8 or 16 bits")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # of which convert would clip what exceeds 255
        levels = np.asarray(image).astype("int64")
        if image.mode != "I" or levels.max() > 255:  # 16 bits
            levels >>= 8
        image = Image.fromarray(np.clip(levels, 0, 255).astype("uint8"))
    return image.convert("RGB")


@contextlib.contextmanager
def reading(name):
    """Whatever Pillow raises in this context becomes a :class:`UserError` that names the file."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # gluoncv, if imported, has set it
    try:
        yield
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"cannot read the image {name}: it is not in an image format") from None
    except Exception as error:  # Pillow's decoders raise many kinds
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"cannot read the image {name}: {reason}") from None


@contextlib.contextmanager
def opened(path):
    """The image of a file as Pillow opens it; what goes wrong is a :class:`UserError`."""
    refuse_special(path)
    with reading(path), Image.open(path) as image:
        yield image


def cut(image, box, size):
    """Crop ``box`` (left, top, right, bottom) and resize it: uint8 (size, size, 3).

    Bilinear, without smoothing when it shrinks, as in MXNet's reader of record files.
    """
    part = image.transform((size, size), Image.EXTENT, box, Image.BILINEAR)
    return np.asarray(part)


class RandomResizedCrop:
    """Crop 8 to 100% of the area, at an aspect ratio of 3/4 to 4/3, and resize it to a square.

    Going Deeper with Convolutions (Szegedy et al., CVPR 2015), section 6.

    Parameters
    ----------
    size : int
        Pixels of the square's side.
    """

    def __init__(self, size):
        self.size = size

    def __call__(self, image, rng):
        for _ in range(10):
            area = rng.uniform(0.08, 1) * image.width * image.height
            aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < width <= image.width and 0 < height <= image.height:
                left = rng.integers(image.width - width + 1)
                top = rng.integers(image.height - height + 1)
                return cut(image, (left, top, left + width, top + height), self.size)
        return CenterCrop(self.size, 1.0)(image)


class CenterCrop:
    """Resize the short side to ``size / ratio`` pixels and crop the central square, in one step.

    The crop lies on whole pixels of the resized image, as in MXNet's reader of record files.

    Parameters
    ----------
    size : int
        Pixels of the square's side.
    ratio : float
        The square's side / the short side, in (0, 1].
    """

    def __init__(self, size, ratio):
        self.size = size
        self.short = round(size / ratio)

    def __call__(self, image, rng=None):
        shorter = min(image.size)
        width, height = (self.short * side // shorter for side in image.size)
        x, y = image.width / width, image.height / height
        left, top = (width - self.size) // 2, (height - self.size) // 2
        box = (left * x, top * y, (left + self.size) * x, (top + self.size) * y)
        return cut(image, box, self.size)


class ImageFolder:
    """Image files with labels; a file is read when it is needed.

    Parameters
    ----------
    paths : list of path-like
        N files.
    labels : numpy.ndarray
        int32 (N,).
    crop : callable
        ``crop(image, rng)``: a PIL image -> uint8 (size, size, 3).
    """

    costly = True  # to read: worth more workers

    def __init__(self, paths, labels, crop):
        self.paths = paths
        self.targets = labels
        self.crop = crop

    def __len__(self):
        return len(self.targets)

    @property
    def image_shape(self):
        return (3, self.crop.size, self.crop.size)

    def take(self, picked, rng):
        """uint8 (n, size, size, 3) and int32 (n,)."""
        images = [self.crop(read_photo(self.paths[index]), rng) for index in picked]
        return np.stack(images), self.targets[picked]


def class_folders(folder):
    """The sorted class names of an image folder, and (path, label) of each image.

    Raises
    ------
    UserError
        The folder does not exist, has no class folders, or has an empty one.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    classes = sorted(each.name for each in folder.iterdir() if each.is_dir())
    if not classes:
        raise UserError(f"{folder} holds no class folders: make one folder per class")
    items = []
    for label, name in enumerate(classes):
        files = sorted(
            path for path in (folder / name).iterdir() if path.suffix.lower() in SUFFIXES
        )
        if not files:
            raise UserError(
                f"the class folder {folder / name} holds no images ({', '.join(SUFFIXES)}): "
                "remove it, or fill it"
            )
        items += [(path, label) for path in files]
    return classes, items
