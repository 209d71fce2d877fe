"""Scenes of scikit-learn's digits at very different scales: segmentation without a download."""

import math

import numpy as np
from PIL import Image

from .base import Dataset, ImageSet, Labels, register_dataset
from .digits import digit_splits

DIGITS = (0, 1, 4)
SIZE = 64  # pixels of a scene's side
SIDES = (10, 40)  # pixels of the smallest and of the largest digit
TRIES = 12  # to place a digit where there is none yet
IMAGES = {"train": 400, "test": 100}
SEED = 0
INK = 0.4  # of full strength: from here on a pixel is the digit's


@register_dataset(
    "scenes",
    title="scenes",
    task="segmentation",
    labels=(Labels("classes", 1 + len(DIGITS), f"background and {len(DIGITS)} digits"),),
    image_shape=(3, SIZE, SIZE),
    settings=("scale_range", "crop_size", "jitter"),
    colours=((0, 0, 0), (230, 60, 60), (60, 160, 230), (240, 200, 40)),
)
def load_scenes(config=None):
    """Digits on a textured background, 400 scenes for training and 100 for testing.

    They are 10 to 40 pixels high, and do not overlap.  The classes are the background and the ink
    of each digit.  Both splits are always the same, and share no digit image.
    """
    digits, splits = digit_splits()
    sets = {}
    for number, (name, indices) in enumerate(zip(IMAGES, splits)):
        rng = np.random.default_rng((SEED, number))
        of_class = [indices[digits.target[indices] == digit] for digit in DIGITS]
        ink = [digits.images[each].astype("float32") / 16 for each in of_class]
        scenes = [_scene(ink, rng) for _ in range(IMAGES[name])]
        images, maps = map(np.stack, zip(*scenes))
        sets[name] = ImageSet(images, maps)
    train = sets["train"].images
    mean, std = ((each / 255).tolist() for each in (train.mean((0, 1, 2)), train.std((0, 1, 2))))
    return Dataset(
        name="scenes",
        labels=f"background and {len(DIGITS)} digits",
        split="{train} training and {test} test scenes".format(**IMAGES) + f", seed {SEED}",
        class_names=("background", *map(str, DIGITS)),
        mean=tuple(mean),
        std=tuple(std),
        **sets,
    )


def _scene(ink, rng):
    """uint8 (SIZE, SIZE, 3) and int32 (SIZE, SIZE); ``ink``: of each class, float32 (N, 8, 8)."""
    scene, classes = _background(rng), np.zeros((SIZE, SIZE), "int32")
    free = np.ones((SIZE, SIZE), bool)
    for _ in range(TRIES):
        side = round(math.exp(rng.uniform(*map(math.log, SIDES))))
        top, left = rng.integers(0, SIZE - side + 1, 2)
        box = slice(top, top + side), slice(left, left + side)
        label = rng.integers(len(ink))
        digit = Image.fromarray(ink[label][rng.integers(len(ink[label]))])
        colour = rng.uniform(170, 255, 3)
        if not free[box].all():
            continue
        free[box] = False
        strength = np.asarray(digit.resize((side, side), Image.BILINEAR))
        scene[box] += strength[..., None] * (colour - scene[box])
        classes[box][strength > INK] = 1 + label
    return np.clip(np.rint(scene), 0, 255).astype("uint8"), classes


def _background(rng):
    """A dark colour with noise of three sizes, float64 (SIZE, SIZE, 3)."""
    scene = rng.uniform(30, 110, 3) + rng.normal(0, 6, (SIZE, SIZE, 3))
    for cells in (4, 16):
        noise = Image.fromarray(rng.uniform(-20, 20, (cells, cells)).astype("float32"))
        scene += np.asarray(noise.resize((SIZE, SIZE), Image.BILINEAR))[..., None]
    return scene
