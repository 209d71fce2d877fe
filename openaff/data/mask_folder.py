"""Images with masks: files that hold a class for every pixel."""

import pathlib

import numpy as np
from PIL import Image

from ..utils.errors import UserError, suggest
from ..utils.files import expand
from .base import Dataset
from .image_folder import MEAN, ORIENTATION, STD, SUFFIXES, opened, read_photo
from .transforms import IGNORE, nearest

IN_MEMORY = 1 << 29  # bytes of pixels that a set may keep, by default
LOSSY = ("JPEG", "MPO", "WEBP")  # formats that no mask may have; MPO is several JPEGs in a file
ENDINGS = ("", "_mask", "_pixels0")  # a mask's name is its image's, with one of these
SETTINGS = (  # of DataConfig, for data sets of such files
    "root",
    "image_size",
    "scale_range",
    "crop_size",
    "jitter",
    "pca_noise",
    "train_split",
    "test_split",
    "skip",
)
_UNKNOWN = -2  # in a table of labels
_OTHER = 256  # the table's entry for values above 255


class MaskFolder:
    """Image files with masks of the same size.

    A small set is read once, when it is made.  Of a large one, files are read when they are needed.

    Parameters
    ----------
    pairs : list of (path-like, path-like)
        N images and their masks.
    labels : dict of int to int
        Value of a mask's pixel, in [0, 255] -> class, or IGNORE.  Other values are errors.
    short_side : int, optional
        Images and masks are resized until their short side has so many pixels.
    in_memory : int
        A set of at most so many bytes of pixels is read once.
    advice : str
        What to say at an unknown label, after its message.

    Attributes
    ----------
    sizes : list of (int, int)
        (H, W) of each sample.
    names : list of str
        Name of each image, without its ending.

    Raises
    ------
    UserError
        A file cannot be read, a mask has another size than its image, or it has an unknown label.
        The message names the file.  In a large set, only sizes are checked at once.
    """

    costly = True  # to read, or to scale: worth more workers

    def __init__(self, pairs, labels, short_side=None, in_memory=IN_MEMORY, advice=""):
        self.pairs = pairs
        self.labels = labels
        self.advice = advice
        self.short_side = short_side
        self._table = np.full(_OTHER + 1, _UNKNOWN, "int16")
        for value, label in labels.items():
            self._table[value] = label
        self.sizes = [_resized(_size(*pair), short_side) for pair in pairs]
        self._samples = None
        if 4 * sum(height * width for height, width in self.sizes) <= in_memory:
            self._samples = [self._read(index) for index in range(len(pairs))]

    def __len__(self):
        return len(self.pairs)

    @property
    def names(self):
        return [pathlib.Path(path).stem for path, _ in self.pairs]

    @property
    def image_shape(self):
        """(3, H, W) of the first image."""
        return (3,) + self.sizes[0]

    def take(self, picked, rng=None):
        """uint8 (n, H, W, 3) and maps (n, H, W); lists of arrays if sizes differ."""
        read = self._samples.__getitem__ if self._samples else self._read
        images, maps = zip(*map(read, picked))
        if len({each.shape for each in maps}) > 1:
            return list(images), list(maps)
        return np.stack(images), np.stack(maps)

    def _read(self, index):
        """uint8 (H, W, 3), and a map int8 or int16 (H, W)."""
        (path, mask_path), (height, width) = self.pairs[index], self.sizes[index]
        image, values = read_photo(path), read_mask(mask_path)
        if _resized(image.size[::-1], self.short_side) != (height, width):  # turned, by late EXIF
            raise UserError(
                f"the image {path} is {image.width} x {image.height} when it is upright, and its "
                "mask is not: turn one of them"
            )
        small = values.dtype == np.uint8
        known = values if small else np.where((values < 0) | (values > 255), _OTHER, values)
        classes = self._table[known]
        unknown = values[classes == _UNKNOWN]
        if unknown.size:
            raise UserError(
                f"the mask {mask_path} has the unknown label {unknown[0]} (known: "
                f"{_runs(self.labels)}){self.advice}"
            )
        if max(self.labels.values()) < 128:
            classes = classes.astype("int8")
        if image.size != (width, height):
            image = image.resize((width, height), Image.BILINEAR)
            rows, columns = (nearest(0, *each) for each in zip(classes.shape, (height, width)))
            classes = classes[rows][:, columns]
        return np.asarray(image), classes


def _resized(size, short_side):
    """(H, W) with this short side."""
    if short_side is None:
        return size
    return tuple(max(1, round(length * short_side / min(size))) for length in size)


def _size(path, mask_path):
    """(H, W) of an image, upright, and of its mask."""
    sizes = []
    for each in (path, mask_path):
        with opened(each) as image:
            turned = image.info.get("exif") and image.getexif().get(ORIENTATION, 1) > 4
            sizes.append(image.size if turned and each == path else image.size[::-1])
    if sizes[0] != sizes[1]:
        (height, width), (mask_height, mask_width) = sizes
        name = pathlib.Path(path).stem
        raise UserError(
            f"the mask {mask_path} is {mask_width} x {mask_height}, but its image is {width} x "
            f"{height}: mend one of them, or leave this image out, \"data.skip=['{name}']\""
        )
    return sizes[0]


def _runs(values):
    """``0 to 11, 255`` of a set of integers."""
    runs = []
    for value in sorted(values):
        if runs and runs[-1][-1] == value - 1:
            runs[-1] = (runs[-1][0], value)
        else:
            runs.append((value,))
    return ", ".join(" to ".join(map(str, run)) for run in runs)


def read_mask(path):
    """The labels in a mask's file: integers (H, W).

    The file is an image of grey values or of palette indices.  If it is in colours, its channels
    must be equal.

    Raises
    ------
    UserError
        The file cannot be read, is a JPEG or WebP, which can change values, or is really in
        colours.
    """
    with opened(path) as image:
        if image.format in LOSSY:
            raise UserError(
                f"the mask {path} is a {image.format}, which can change labels: save it as PNG"
            )
        image.load()
        values, colours = np.asarray(image), len(image.getbands()) // 3 * 3 or 1
    if values.ndim == 3:
        grey, values = values[..., :1], values[..., :colours]  # without an alpha channel
        if (values != grey).any():
            raise UserError(
                f"the mask {path} is in colours: save class numbers, in grey or with a palette"
            )
        values = values[..., 0]
    if values.dtype.kind == "f":
        raise UserError(f"the mask {path} has pixels that are no integers: save it as PNG")
    return values.astype("uint8") if values.dtype == bool else values


def find_pairs(images, masks, names=None):
    """The image and the mask of each name, as a list of two paths.

    Parameters
    ----------
    images, masks : pathlib.Path
        The folders.
    names : list of str, optional
        The images' names without their endings; by default all that are there, sorted.

    Raises
    ------
    UserError
        A folder, an image or a mask is missing, a name stands for two files, or a mask for
        two images.
    """
    images_by_name, masks_by_name = _by_name(images), _by_name(masks)
    pairs, without, used = [], [], {}
    for name in sorted(images_by_name) if names is None else names:
        mask = next((name + end for end in ENDINGS if name + end in masks_by_name), None)
        if name not in images_by_name:
            without.append(f"there is no image {images / name}")
        elif mask is None:
            without.append(f"there is no mask for {images_by_name[name]} in {masks}")
        elif mask in used:
            raise UserError(
                f"{masks_by_name[mask]} is the mask of {images_by_name[used[mask]].name} and of "
                f"{images_by_name[name].name}: rename one image, or add its mask"
            )
        else:
            used[mask] = name
            pairs.append((images_by_name[name], masks_by_name[mask]))
    if names is None:
        unused = sorted(set(masks_by_name) - set(used))
        without += [f"there is no image for {masks_by_name[name]} in {images}" for name in unused]
    if without:
        more = f" (and {len(without) - 1} more are missing)" if len(without) > 1 else ""
        raise UserError(without[0] + more)
    if not pairs:
        raise UserError(f"{images} holds no images ({', '.join(SUFFIXES)})")
    return pairs


def _by_name(folder):
    """Name without ending -> path, of the image files in a folder."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            if path.stem in found:
                raise UserError(f"{found[path.stem]} and {path} have the same name: remove one")
            found[path.stem] = path
    return found


def mask_dataset(config, class_names, labels, splits, words, advice=""):
    """The :class:`~openaff.data.Dataset` of images with masks.

    Parameters
    ----------
    config : DataConfig
        Its ``image_size`` and ``skip``.
    class_names : sequence of str
        K names.
    labels : dict of int to int
        See :class:`MaskFolder`.
    splits : tuple of lists
        The pairs of the training and of the test split.
    words : str
        Where the split comes from.
    advice : str
        See :class:`MaskFolder`.

    Raises
    ------
    UserError
        See :class:`MaskFolder`; also an image that is in both splits, or to be left out and not
        there.
    """
    skip = set(config.skip or ())
    names = [[image.stem for image, _ in pairs] for pairs in splits]
    for kind, (ours, theirs) in zip(("image", "mask"), zip(*(zip(*pairs) for pairs in splits))):
        both = sorted(set(ours) & set(theirs))
        if both:
            raise UserError(f"{both[0]} is a training and a test {kind}")
    for name in sorted(skip - {*names[0], *names[1]}):
        digits = "; a name made of digits needs quotes, \"data.skip=['0001']\""
        raise UserError(
            f"data.skip: there is no image {name}{suggest(name, [*names[0], *names[1]])}"
            f"{digits if name.isdigit() else ''}"
        )
    train, test = (
        MaskFolder(
            [pair for pair in pairs if pair[0].stem not in skip],
            labels,
            config.image_size,
            advice=advice,
        )
        for pairs in splits
    )
    if not (len(train) and len(test)):
        raise UserError("data.skip leaves out all images of a split")
    parts = [f"{len(train):,} training and {len(test):,} test images ({words})"]
    if config.image_size:
        parts.append(f"short side {config.image_size}")
    if skip:
        parts.append("without " + ", ".join(sorted(skip)))
    return Dataset(
        name=config.name,
        labels=f"{len(class_names)} classes",
        split=", ".join(parts),
        class_names=tuple(class_names),
        train=train,
        test=test,
        mean=MEAN,
        std=STD,
    )


def required_root(config, content):
    """``config.root`` as a path; a :class:`UserError` if it is not set or no folder."""
    if config.root is None:
        raise UserError(f"data.root is not set: name the folder of {content}")
    root = expand(config.root)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: data.root is the folder of {content}")
    return root


def class_labels(count, ignored=255):
    """The labels of masks that hold class numbers, and ``ignored`` where a pixel does not count."""
    return {**{value: value for value in range(count)}, ignored: IGNORE}
