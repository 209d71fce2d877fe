"""One's own images with masks, SIRST and StopSign: ``images/``, ``masks/`` and split lists."""

import numpy as np

from ..utils.errors import UserError, duplicates
from ..utils.files import read_text
from .base import Labels, register_dataset
from .image_folder import MEAN, STD, SUFFIXES
from .mask_folder import SETTINGS, class_labels, find_pairs, mask_dataset, required_root
from .transforms import IGNORE

CLASSES = "classes.txt"
BINARY = ("background", "target")
BINARY_LABELS = {0: 0, 1: 1, 255: 1}
STOPSIGN = ("background", "stop sign")
SPLITS = ("train", "val", "trainval", "test")
TEST_EVERY = 5  # without lists, every fifth image is for testing
MOST_CLASSES = 255  # 0 to 254, since 255 does not count
_SAMPLE = 32  # masks to look at, for whether 255 is really what does not count

MASKS = {
    "task": "segmentation",
    "image_shape": (3, 480, 480),
    "settings": (*SETTINGS, "lists"),
    "mean": MEAN,
    "std": STD,
}


@register_dataset("masks", title="masks", labels=(Labels("classes", None, "{} classes"),), **MASKS)
def load_masks(config):
    """The images in ``config.root``: ``images/``, ``masks/`` and, if there, ``classes.txt``.

    With ``classes.txt``, one name per line, masks hold class numbers from 0, and 255 where a pixel
    does not count.  Without it they are binary: 0 is the background, 255 or 1 the target.

    ``train.txt`` and ``test.txt``, one name per line, say which image is in which split.  They
    stand in ``config.root``, or in its folder ``config.lists``.  Without lists, every fifth image
    by name is for testing.

    Raises
    ------
    UserError
        What is missing or wrong, by file name: see :func:`~.mask_folder.find_pairs` and
        :class:`~.mask_folder.MaskFolder`.
    """
    root = required_root(config, "images/ and masks/")
    names = read_names(root / CLASSES) if (root / CLASSES).exists() else None
    if names and len(names) > MOST_CLASSES:
        raise UserError(
            f"{root / CLASSES} has {len(names)} names, but masks tell at most {MOST_CLASSES} "
            "classes apart: 255 does not count"
        )
    lists, words = _split_lists(root, config)
    splits = [find_pairs(root / "images", root / "masks", each) for each in lists]
    labels = class_labels(len(names)) if names else BINARY_LABELS
    advice = "" if names else f"; masks with class numbers need {CLASSES}"
    dataset = mask_dataset(config, names or BINARY, labels, splits, words, advice)
    if names:
        _check_ignored(dataset.train, root)
    return dataset


@register_dataset(
    "stopsign",
    title="StopSign",
    labels=(Labels("classes", 2, "stop sign or not", STOPSIGN),),
    **MASKS,
)
def load_stopsign(config):
    """COCO's images with stop signs, as ``openaff prepare-coco`` writes them; see the paper."""
    dataset = load_masks(config)
    if dataset.class_names != STOPSIGN:
        raise UserError(
            f"{config.root} has the classes {', '.join(dataset.class_names)}, but StopSign has "
            f"{', '.join(STOPSIGN)}: data.name=masks takes any"
        )
    dataset.labels = "stop sign or not"
    return dataset


def read_names(path):
    """The names in a file, one per line.

    Raises
    ------
    UserError
        The file cannot be read or is empty, or a name stands there twice or cannot be printed.
    """
    names = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if not names:
        raise UserError(f"{path} is empty: write one name per line")
    twice = duplicates(names)
    if twice:
        raise UserError(f"{path} has the name {twice[0]!r} twice")
    for name in names:
        if not name.isprintable():
            raise UserError(f"{path} has the name {name!r}, which cannot be printed")
    return names


def _split_lists(root, config):
    """The image names of training and test split, and where they come from, in words."""
    folder = root / (config.lists or "")
    wanted = (config.train_split or "train", config.test_split or "test")
    if not (config.lists or any((folder / f"{split}.txt").exists() for split in SPLITS)):
        below = sorted({path.parent.name for name in SPLITS for path in root.glob(f"*/{name}.txt")})
        if below:
            raise UserError(
                f"{root} has lists of images in {' and '.join(below)}: name one, "
                f"data.lists={below[0]}"
            )
        if config.train_split or config.test_split:
            raise UserError(
                f"data.train_split and data.test_split need lists of images, but {root} has no "
                f"{wanted[0]}.txt"
            )
        names = [image.stem for image, _ in find_pairs(root / "images", root / "masks")]
        if len(names) < 2:
            raise UserError(f"{root / 'images'} holds one image: a test image is needed, too")
        test = names[::TEST_EVERY]
        return (sorted(set(names) - set(test)), test), "every fifth is for testing"
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: data.lists is a folder below data.root")
    lists = [_read_list(folder, split) for split in wanted]
    where = f"{config.lists}/" if config.lists else ""
    return lists, " and ".join(f"{where}{split}.txt" for split in wanted)


def _read_list(folder, split):
    """The images of a split, without their endings; none twice."""
    path = folder / f"{split}.txt"
    if split == "trainval" and not path.exists():
        names = _read_list(folder, "train") + _read_list(folder, "val")
        return _once(names, f"{folder / 'train.txt'} and {folder / 'val.txt'} have")
    if not path.exists():
        there = sorted(each.stem for each in folder.glob("*.txt") if each.name != CLASSES)
        raise UserError(
            f"there is no {path}: it names the images of the split {split} (there: "
            f"{', '.join(there) or 'none'}; see data.train_split and data.test_split)"
        )
    return _once([_without_ending(name) for name in read_names(path)], f"{path} has")


def _once(names, where):
    twice = duplicates(names)
    if twice:
        raise UserError(f"{where} the image {twice[0]} twice")
    return names


def _without_ending(name):
    stem, dot, ending = name.rpartition(".")
    return stem if f"{dot}{ending}".lower() in SUFFIXES else name


def _check_ignored(train, root):
    """Refuse binary masks of 0 and 255 where 255 stands for what does not count."""

    def maps(indices):
        return (train.take([index])[1][0] for index in indices)

    sample = np.linspace(0, len(train) - 1, min(len(train), _SAMPLE)).astype(int)
    if not any((each == IGNORE).any() for each in maps(sample)):
        return
    if not any((each > 0).any() for part in (sample, range(len(train))) for each in maps(part)):
        raise UserError(
            f"the masks of {root} hold 0 and 255 alone, and with {CLASSES} 255 does not count: "
            f"write class numbers into the masks or, if they are binary, remove {CLASSES}"
        )
