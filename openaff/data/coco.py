"""Masks of chosen categories from COCO's own files, in the layout of the data set ``masks``.

Microsoft COCO: Common Objects in Context (Lin et al., ECCV 2014); https://cocodataset.org/#format-data
"""

import pathlib

import numpy as np
from PIL import Image, ImageOps

from ..utils.errors import UserError, one_line, suggest
from ..utils.files import atomic_folder, link, refuse_existing, write_json, write_text
from ..utils.json_files import read_json
from ..utils.packaged import pip_install
from ..utils.progress import progress_bar
from ..utils.provenance import provenance
from .image_folder import ORIENTATION, opened
from .masks import CLASSES

RECORD = "coco.json"
SPLITS = {"train": "train2017", "test": "val2017"}  # COCO's own test images have no annotations
CROWD = 255  # in a mask: does not count


def prepare(coco, categories, out):
    """Write the images that contain some categories, and their masks, into a new folder.

    ``images/`` (hard links where possible, otherwise copies), ``masks/`` (PNG; 0 is the background,
    1, 2, ... are the categories in the order given, 255 is a crowd), ``classes.txt``,
    ``train.txt``, ``test.txt``, and ``coco.json``, which says what it was made from.  Whole or not
    at all.

    Where objects overlap, the smaller one is on top.  An image belongs to the set if it has an
    object of a category that is no crowd.

    Parameters
    ----------
    coco : path-like
        COCO's folder: ``annotations/instances_train2017.json`` and ``instances_val2017.json``,
        ``train2017/`` and ``val2017/``.
    categories : sequence of str
        Names of COCO's categories.
    out : path-like
        The folder to make.

    Returns
    -------
    dict
        What ``coco.json`` says.

    Raises
    ------
    UserError
        ``out`` exists; a file is missing, or not what it should be; a category is unknown, named
        twice, or in no image of a split; two images have one name; pycocotools is not installed.
    """
    coco, out = pathlib.Path(coco), pathlib.Path(out)
    refuse_existing(out)
    decode = _decoder()
    found = {split: _read(coco, name, categories) for split, name in SPLITS.items()}
    for split, images in found.items():
        _check_files(coco / SPLITS[split], images)
    _check_stems(coco, found)
    with atomic_folder(out) as folder:
        for name in ("images", "masks"):
            (folder / name).mkdir()
        write_text(folder / CLASSES, "\n".join(["background", *categories]) + "\n")
        facts = {}
        for split, images in found.items():
            counts = np.zeros(256, int)
            for image in progress_bar(images, unit="img", desc=split):
                counts += _write(coco / SPLITS[split], image, folder, decode)
            names = [pathlib.Path(image["file_name"]).stem for image in images]
            write_text(folder / f"{split}.txt", "\n".join(names) + "\n")
            facts[split] = _facts(SPLITS[split], images, categories, counts)
        record = {"categories": list(categories), "splits": facts, **provenance()}
        write_json(folder / RECORD, record)
    return record


def _decoder():
    """``decode(segmentation, height, width)``: bool (H, W) of polygons or run lengths."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError(f"COCO's masks need pycocotools ({error}): {pip_install('coco')}") from None

    def decode(segmentation, height, width):
        if isinstance(segmentation, list):  # four numbers are taken for a box
            polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
            if not polygons:
                return np.zeros((height, width), bool)
            side = max(height, width)  # far points would end the process
            if not all(-side <= each <= 2 * side for polygon in polygons for each in polygon):
                raise ValueError("a polygon's point is far outside the image")
            encoded = mask.merge(mask.frPyObjects(polygons, height, width))
        else:
            counts = segmentation["counts"]
            counts = _runs(counts) if isinstance(counts, str) else counts
            if sum(counts) != height * width:
                raise ValueError(f"its run lengths are not for {width} x {height} pixels")
            if min(counts) < 0:
                raise ValueError("a run length is negative")
            form = {"counts": counts, "size": [height, width]}
            encoded = mask.frPyObjects(form, height, width)
        return mask.decode(encoded).astype(bool)

    return decode


def _runs(text):
    """The run lengths of COCO's compressed form: 5 bits a character, from the third on differences.

    pycocotools reads it, too, but believes what a damaged one says.
    """
    runs, value, shift = [], 0, 0
    for code in text.encode():
        digit = code - 48
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:  # the number's last character, whose highest bit is the sign
            if digit & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _read(coco, name, categories):
    """The images of a split that contain the categories, each with its ``objects``, by name."""
    path = coco / "annotations" / f"instances_{name}.json"
    try:
        content = read_json(path)
        numbers = {each["name"]: each["id"] for each in content["categories"]}
        images = {each["id"]: dict(each, objects=[]) for each in content["images"]}
        labels = {}
        for label, category in enumerate(categories, 1):
            if category not in numbers:
                known = suggest(category, numbers) or f" (it has {', '.join(numbers)})"
                raise UserError(f"{path} has no category {category!r}{known}")
            if numbers[category] in labels:
                raise UserError(f"the category {category!r} is named twice")
            labels[numbers[category]] = label
        for each in content["annotations"]:
            if each["category_id"] in labels:
                entry = {
                    "label": labels[each["category_id"]],
                    "crowd": bool(each["iscrowd"]),
                    "area": each["area"],
                    "segmentation": each["segmentation"],
                }
                images[each["image_id"]]["objects"].append(entry)
        used = [
            image
            for image in images.values()
            if any(not each["crowd"] for each in image["objects"])
        ]
        used.sort(key=lambda image: image["file_name"])
        for image in used:
            image["objects"].sort(key=lambda each: (not each["crowd"], -each["area"]))
            if pathlib.PurePath(image["file_name"]).name != image["file_name"]:
                raise ValueError(f"the file name {image['file_name']!r} is a path")
            for key in ("height", "width"):
                if type(image[key]) is not int or image[key] < 1:
                    raise ValueError(f"{image['file_name']} has the {key} {image[key]!r}")
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        kind = type(error).__name__
        raise UserError(
            f"{path} is not COCO's file of instances ({kind}: {one_line(error)})"
        ) from None
    for label, category in enumerate(categories, 1):
        objects = (each for image in used for each in image["objects"])
        if not any(each["label"] == label and not each["crowd"] for each in objects):
            raise UserError(f"no image of {path} has the category {category!r}")
    return used


def _check_files(folder, images):
    missing = [
        image["file_name"] for image in images if not (folder / image["file_name"]).is_file()
    ]
    if missing:
        raise UserError(
            f"{folder / missing[0]} is missing ({len(missing):,} of the {len(images):,} images "
            f"needed are): unpack {folder.name}.zip there"
        )


def _check_stems(coco, found):
    """Refuse images whose masks would have one name."""
    seen = {}
    for split, images in found.items():
        for image in images:
            path = coco / SPLITS[split] / image["file_name"]
            if path.stem in seen:
                raise UserError(
                    f"{seen[path.stem]} and {path} would have one mask, {path.stem}.png: rename one"
                )
            seen[path.stem] = path


def _write(source, image, folder, decode):
    """Write an image and its mask; the number of pixels of each value."""
    name, height, width = image["file_name"], image["height"], image["width"]
    with opened(source / name) as photo:
        size, exif = photo.size, photo.getexif()
    if size != (width, height):
        raise UserError(
            f"{source / name} is {size[0]} x {size[1]}, but its annotations are for {width} x "
            f"{height}: get the image again"
        )
    mask = np.zeros((height, width), "uint8")
    for each in image["objects"]:
        try:
            covered = decode(each["segmentation"], height, width)
            mask[covered] = CROWD if each["crowd"] else each["label"]
        except (ValueError, TypeError, KeyError, IndexError) as error:
            kind = type(error).__name__
            raise UserError(
                f"cannot read an object of {name} ({kind}: {one_line(error)})"
            ) from None
    picture = Image.fromarray(mask)
    if exif.get(ORIENTATION, 1) != 1:  # annotations are for the file's pixels, readers turn them
        picture.getexif()[ORIENTATION] = exif[ORIENTATION]
        picture = ImageOps.exif_transpose(picture)
    with open(folder / "masks" / f"{pathlib.Path(name).stem}.png", "xb") as target:
        picture.save(target, "PNG", optimize=True)
    link(source / name, folder / "images" / name)
    return np.bincount(mask.ravel(), minlength=256)


def _facts(source, images, categories, counts):
    objects = [each for image in images for each in image["objects"]]
    names = ["background", *categories]
    return {
        "source": source,
        "images": len(images),
        "objects": {
            name: sum(each["label"] == label and not each["crowd"] for each in objects)
            for label, name in enumerate(names)
            if label
        },
        "crowds": sum(each["crowd"] for each in objects),
        "pixels": {
            **{name: int(counts[k]) for k, name in enumerate(names)},
            "crowd": int(counts[CROWD]),
        },
    }
