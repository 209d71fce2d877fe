"""Made-up images with masks for tests, in the layouts that the data sets read."""

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
