"""Class folders of made-up photographs for tests."""

import numpy as np
from PIL import Image

COLOURS = {"blue": (20, 30, 200), "green": (20, 200, 30), "red": (200, 30, 20)}


def write_folder(folder, per_class=4, size=(72, 56)):
    """``folder/COLOUR/N.jpg``: smooth gradients, each class of its own colour."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0.5, 1, size[0])[None, :, None] * np.linspace(0.6, 1, size[1])[:, None, None]
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = ramp * colour * rng.uniform(0.8, 1.2)
            image = Image.fromarray(np.clip(pixels, 0, 255).astype("uint8"))
            image.save(folder / name / f"{index}.jpg", quality=95)
    return folder
