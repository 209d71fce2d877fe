"""CamVid: street scenes with 11 classes, in the folders of the SegNet tutorial.

Semantic Object Classes in Video (Brostow et al., Pattern Recognition Letters 2009).
"""

from .base import Labels, register_dataset
from .image_folder import MEAN, STD
from .mask_folder import SETTINGS, class_labels, find_pairs, mask_dataset, required_root

# Name -> colour in pictures, RGB, in the order of the labels.
CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
VOID = len(CLASSES)  # the label of pixels that do not count


@register_dataset(
    "camvid",
    title="CamVid",
    task="segmentation",
    labels=(Labels("classes", len(CLASSES), f"{len(CLASSES)} classes", tuple(CLASSES)),),
    image_shape=(3, 360, 480),
    settings=SETTINGS,
    mean=MEAN,
    std=STD,
    colours=tuple(CLASSES.values()),
)
def load_camvid(config):
    """CamVid from ``config.root``: ``train/`` and ``trainannot/``, ``val/``, ``test/`` and so on.

    An image and its mask have the same name; label 11, void, does not count.

    Raises
    ------
    UserError
        See :func:`~.mask_folder.find_pairs` and :class:`~.mask_folder.MaskFolder`.
    """
    root = required_root(config, "train/, trainannot/, test/ and testannot/")
    parts = {"trainval": ("train", "val")}
    splits = []
    for split in (config.train_split or "train", config.test_split or "test"):
        pairs = []
        for part in parts.get(split, (split,)):
            pairs += find_pairs(root / part, root / f"{part}annot")
        splits.append(pairs)
    words = " and ".join([config.train_split or "train", config.test_split or "test"])
    return mask_dataset(config, CLASSES, class_labels(len(CLASSES), VOID), splits, words)
