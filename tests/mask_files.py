"""Made-up images with masks for tests, in the layouts that the data sets read."""

import json
import os

import numpy as np
from PIL import Image


def sample(index, size=(20, 30), classes=3):
    """An image that tells its own classes, 20 times the class in red; and the map."""
    rng = np.random.default_rng(index)
    height, width = size
    squares = rng.integers(0, classes, (1 + height // 6, 1 + width // 6)).astype("uint8")
    classes_there = squares.repeat(6, 0).repeat(6, 1)[:height, :width].copy()
    image = rng.integers(0, 40, size + (3,)).astype("uint8")
    image[..., 0] = 20 * classes_there
    return image, classes_there


def write_masks(folder, count=6, sizes=((20, 30), (24, 18)), classes=3, names=None):
    """``images/N.png`` and ``masks/N.png`` of class numbers, with ``classes.txt``."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for index in range(count):
        image, mask = sample(index, sizes[index % len(sizes)], classes)
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
    names = names or [f"class {number}" for number in range(classes)]
    (folder / "classes.txt").write_text("\n".join(names) + "\n")
    return folder


def write_binary(folder, count=6, size=(20, 30)):
    """The same with masks of 0 and 255, and no ``classes.txt``."""
    write_masks(folder, count, (size,), classes=2)
    (folder / "classes.txt").unlink()
    for path in (folder / "masks").iterdir():
        Image.fromarray(255 * np.asarray(Image.open(path))).save(path)
    return folder


def fifo(path):
    """Put a pipe in a file's place."""
    path.unlink()
    os.mkfifo(path)


def write_camvid(folder, count=3, size=(24, 32)):
    """``train/``, ``trainannot/`` and so on, with label 11 in a corner."""
    for start, split in enumerate(("train", "val", "test")):
        for kind in (split, f"{split}annot"):
            (folder / kind).mkdir(parents=True)
        for index in range(count):
            image, mask = sample(10 * start + index, size, 11)
            mask[:4, :4] = 11
            Image.fromarray(image).save(folder / split / f"{split}{index}.png")
            Image.fromarray(mask).save(folder / f"{split}annot" / f"{split}{index}.png")
    return folder


# --- COCO -----------------------------------------------------------------------------------------

NAMES = {1: "person", 10: "stop sign", 13: "parking meter"}


def square(left, top, size):
    """A polygon around whole pixels."""
    right, bottom = left + size, top + size
    return [[left, top, right, top, right, bottom, left, bottom]]


def run_lengths(mask, text=False):
    """COCO's two forms of them: lists of counts, by column, or a compressed string."""
    import pycocotools.mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask.astype("uint8")))
    if text:
        return {"size": encoded["size"], "counts": encoded["counts"].decode()}
    flat = np.concatenate([[0], mask.T.ravel(), [2]])
    changes = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], changes]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def annotation(image, category, segmentation, area=100, crowd=0):
    return {
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "area": area,
        "iscrowd": crowd,
        "bbox": [1, 1, 8, 9],
    }


def write_coco(folder):
    """COCO's layout: six images of 40 x 30 for training and two for validation."""
    (folder / "annotations").mkdir(parents=True)
    crowd = np.zeros((30, 40), bool)
    crowd[2:6, 30:38] = True
    written = {
        "train": [
            annotation(1, 10, square(5, 5, 10)),
            annotation(1, 1, square(0, 0, 30), area=900),  # below the sign
            annotation(2, 10, square(2, 3, 4)),
            annotation(2, 10, run_lengths(crowd), crowd=1),
            annotation(3, 1, square(0, 0, 8)),
            annotation(4, 10, run_lengths(crowd, text=True), crowd=1),  # nothing else
            annotation(5, 13, square(0, 0, 8)),
            annotation(6, 10, [[1, 1, 9, 9], *square(20, 20, 5)]),  # a polygon of two points
        ],
        "val": [annotation(11, 10, square(1, 1, 6)), annotation(12, 1, square(1, 1, 6))],
    }
    numbers = {"train": range(1, 7), "val": range(11, 13)}
    for split, annotations in written.items():
        (folder / f"{split}2017").mkdir()
        images = []
        for number in numbers[split]:
            name = f"{number:012}.jpg"
            images.append({"id": number, "file_name": name, "height": 30, "width": 40})
            photo = Image.fromarray(np.full((30, 40, 3), 10 * number, "uint8"))
            photo.save(folder / f"{split}2017" / name)
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": key, "name": name} for key, name in NAMES.items()],
        }
        path = folder / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(content))
    return folder
