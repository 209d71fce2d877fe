"""A photograph of any size as a network's evaluation sees it."""

import pathlib

import numpy as np
from PIL import Image, ImageOps

from ..utils.errors import UserError
from .image_folder import SUFFIXES, CenterCrop, read_photo, upright_rgb
from .transforms import Normalize

LARGEST = 1 << 26  # pixels that a network may see of one photograph
LONGEST = (1 << 15) - 1  # pixels of a side: MXNet's interpolation counts them in 16 bits


class Preprocessing:
    """Crop, resize and scale photographs.

    Parameters
    ----------
    input_shape : tuple of int
        (3, H, W), of networks with a fixed one.
    mean, std : sequence of float
        Of each channel, of pixel values in [0, 1].
    crop_ratio : float, optional
        The central square's side / the short side; by default the largest centre of the input's
        shape.
    dense : bool
        The network takes images of any size, whole.
    short_side : int, optional
        Of a dense network: pixels of the short side that images are resized to.
    """

    def __init__(self, input_shape, mean, std, crop_ratio=None, dense=False, short_side=None):
        _, height, width = input_shape
        self.dense, self.short_side = dense, short_side
        if crop_ratio is not None and height == width:
            self._crop = CenterCrop(height, crop_ratio)  # as in evaluation
        else:
            self._crop = lambda image: np.asarray(
                ImageOps.fit(image, (width, height), Image.BILINEAR)
            )
        self.normalize = Normalize(mean, std)

    def see(self, image, name=None):
        """uint8 (H, W, 3) of a path, a PIL image, or a uint8 array (H, W, 3) or (H, W).

        ``name`` stands in messages, by default the path.

        Raises
        ------
        UserError
            It cannot be read, is an array of another kind, or would be too large.
        """
        if name is None:
            name = image if isinstance(image, (str, pathlib.Path)) else "a photograph"
        image = photo(image)
        return np.asarray(self._resize(image, name)) if self.dense else self._crop(image)

    def __call__(self, images):
        """float32 (N, 3, H, W) of a list of images, see :meth:`see`."""
        return self.normalize(np.stack([self.see(image) for image in images]))

    def _resize(self, image, name):
        scale = self.short_side / min(image.size) if self.short_side else 1
        sides = [max(1, round(scale * side)) for side in image.size]
        if sides[0] * sides[1] > LARGEST or max(sides) > LONGEST:
            raise UserError(
                "{} of {} x {} is too long to be seen as {} x {}: crop it".format(
                    name, *image.size, *sides
                )
            )
        return image.resize(sides, Image.BILINEAR) if self.short_side else image


def photo(image):
    """A PIL image in RGB, of a path, a PIL image, or a uint8 array (H, W, 3) or (H, W)."""
    if isinstance(image, Image.Image):
        return upright_rgb(image, "an image")
    if isinstance(image, np.ndarray):
        fits = image.ndim in (2, 3) and image.shape[2:] in ((), (3,)) and image.size
        if image.dtype != np.uint8 or not fits:
            raise UserError(
                f"an array must be uint8 (H, W, 3) or (H, W), not {image.dtype} {image.shape}"
            )
        return Image.fromarray(image).convert("RGB")
    return read_photo(image)


def image_files(paths):
    """The paths, with the image files of folders in their place.

    Raises
    ------
    UserError
        A folder without images.
    """
    files = []
    for path in map(pathlib.Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(
            each for each in path.iterdir() if each.suffix.lower() in SUFFIXES and each.is_file()
        )
        if not inside:
            raise UserError(f"the folder {path} holds no images ({', '.join(SUFFIXES)})")
        files += inside
    return files
