"""ImageNet and photographs of your own, from record files or image folders."""

import numpy as np

from ..utils.errors import UserError
from ..utils.files import expand
from .base import Dataset, Labels, register_dataset
from .image_folder import MEAN, STD, CenterCrop, ImageFolder, RandomResizedCrop, class_folders

IMAGE_SIZE = 224  # pixels, by default
CROP_RATIO = 224 / 256  # of the short side, by default
CLASSES = 1000
SPLITS = {"train": "training", "val": "validation"}


PHOTOGRAPHS = {
    "task": "classification",
    "image_shape": (3, IMAGE_SIZE, IMAGE_SIZE),
    "mean": MEAN,
    "std": STD,
    "crop_ratio": CROP_RATIO,
    "tested_on": SPLITS["val"],
    "settings": (
        "root",
        "image_size",
        "crop_ratio",
        "jitter",
        "pca_noise",
        "autoaugment",
        "mixup_alpha",
        "mixup_off_epochs",
    ),
}


@register_dataset(
    "imagenet",
    title="ImageNet",
    labels=(Labels("classes", CLASSES, "{} classes"),),
    **PHOTOGRAPHS,
)
def load_imagenet(config):
    """ILSVRC 2012 from ``config.root``, see :func:`load_photos`: 1,000 classes."""
    dataset = load_photos(config)
    if len(dataset.class_names) != CLASSES:
        raise UserError(
            f"{config.root} holds {len(dataset.class_names)} classes, but ImageNet has {CLASSES}: "
            "data.name=images reads any number"
        )
    return dataset


@register_dataset(
    "images", title="images", labels=(Labels("classes", None, "{} classes"),), **PHOTOGRAPHS
)
def load_photos(config):
    """The images in ``config.root``: record files if there are any, otherwise class folders.

    Records are ``train.rec`` and ``val.rec`` with their ``.idx``, as ``openaff prepare-imagenet``
    packs them.  Folders are ``train/CLASS/`` and ``val/CLASS/``.  One split may be missing; it is
    None.

    Raises
    ------
    UserError
        There are neither records nor folders, they are damaged or do not match, or AutoAugment is
        set for records, whose reader does not have it.
    """
    if config.root is None:
        raise UserError(
            "data.root is not set: name the folder of train.rec and val.rec, or of train/ and val/"
        )
    root = expand(config.root)
    size = IMAGE_SIZE if config.image_size is None else config.image_size
    ratio = CROP_RATIO if config.crop_ratio is None else config.crop_ratio
    crops = {"train": RandomResizedCrop(size), "val": CenterCrop(size, ratio)}
    if any((root / f"{split}.rec").exists() for split in SPLITS):
        if config.autoaugment:
            raise UserError(
                "data.autoaugment works on class folders only; MXNet's reader of record files does "
                "not have it: leave it out, or train on folders"
            )
        kind, names, splits = "records", *_read_records(root, crops, config.name)
    elif any((root / split).is_dir() for split in SPLITS):
        kind, names, splits = "class folders", *_read_folders(root, crops)
    else:
        raise UserError(
            f"{root} holds neither train.rec and val.rec nor train/ and val/: see "
            "openaff prepare-imagenet and docs/imagenet.md"
        )
    counts = [
        f"{len(splits[split]):,} {word} images" for split, word in SPLITS.items() if split in splits
    ]
    return Dataset(
        name=config.name,
        labels=f"{len(names)} classes",
        split=f"{' and '.join(counts)} ({kind}), {size} pixels, crop ratio {ratio:g}",
        class_names=tuple(names),
        train=splits.get("train"),
        test=splits.get("val"),
        mean=MEAN,
        std=STD,
    )


def _read_records(root, crops, name):
    """Class names and record sets, by split."""
    # Not at the top: records need mxnet, and the doctor reads other data without it.
    from .records import MANIFEST, RecordSet, read_manifest

    paths = {split: root / f"{split}.rec" for split in SPLITS}
    paths = {split: path for split, path in paths.items() if path.exists()}
    manifest = read_manifest(root)
    if manifest is None:  # packed by other tools
        if name != "imagenet":
            raise UserError(
                f"{root} has no {MANIFEST}, so its classes are not known: pack the images with "
                "openaff prepare-imagenet"
            )
        classes, packed = list(map(str, range(CLASSES))), {}
    else:
        classes, packed = manifest["classes"], manifest["splits"]
        for split, path in paths.items():
            if split not in packed:
                raise UserError(f"{path} is not in the manifest beside it: pack the split again")
    return classes, {
        split: RecordSet(path, crops[split], len(classes), packed.get(split))
        for split, path in paths.items()
    }


def _read_folders(root, crops):
    """Class names and photo sets, by split."""
    classes, splits = None, {}
    for split in SPLITS:
        if not (root / split).is_dir():
            continue
        names, items = class_folders(root / split)
        classes = classes or names
        unknown = sorted(set(names) - set(classes))
        if unknown:
            raise UserError(f"{root / split} has the class {unknown[0]!r}, but train/ does not")
        numbers = [classes.index(name) for name in names]
        paths, labels = zip(*((path, numbers[label]) for path, label in items))
        splits[split] = ImageFolder(paths, np.array(labels, "int32"), crops[split])
    return classes, splits
