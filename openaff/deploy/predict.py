"""Running an exported network on photographs."""

import pathlib

import mxnet as mx
import numpy as np
from PIL import Image, ImageOps

from ..data.image_folder import CenterCrop, read_photo
from ..data.transforms import Normalize
from ..tasks import TASKS
from ..utils.errors import UserError, positive_int
from .export import read_export
from .onnx_model import network
from .pytorch.weights import runner

LARGEST = 1 << 26  # pixels that a network may see of one photograph
ENGINES = {
    "mxnet": "-symbol.json",
    "onnxruntime": ".onnx",
    "onnxruntime-int8": "-int8.onnx",
    "pytorch": ".safetensors",
}


class Predictor:
    """An exported network with its recorded preprocessing.

    Parameters
    ----------
    folder : path-like
        What :func:`openaff.deploy.export.export_folder` wrote.
    engine : str, optional
        ``mxnet``, ``onnxruntime``, ``onnxruntime-int8`` or ``pytorch``; by default ONNX Runtime in
        float32, or MXNet where there is no ONNX file, or PyTorch where there is no other.
    batch_size : int
        Images at once.

    Raises
    ------
    UserError
        No export folder, a changed file, or an engine that it has no file for.
    """

    def __init__(self, folder, engine=None, batch_size=32):
        folder = pathlib.Path(folder)
        self.description = read_export(folder)
        # Exports of the first edition, which had classification alone, do not name their task.
        self.task = TASKS[self.description.get("task", "classification")]
        self.labels = (folder / "labels.txt").read_text().splitlines()
        self.batch_size = positive_int("batch_size", batch_size)
        files = {name: self.description["model"] + suffix for name, suffix in ENGINES.items()}
        there = [name for name, file in files.items() if file in self.description["files"]]
        if engine is None:
            engine = "onnxruntime" if "onnxruntime" in there else there[0]
        if engine not in there:
            raise UserError(
                f"{folder} has no file for the engine {engine!r}: it has {', '.join(there)}"
            )
        self.engine = engine
        path = folder / files[engine]
        if engine == "mxnet":
            params = folder / (self.description["model"] + "-0000.params")
            self._network = mx.gluon.SymbolBlock.imports(str(path), ["data"], str(params))
            self._network.hybridize(static_alloc=True)
        elif engine == "pytorch":
            self._network = runner(path)
        else:
            self._network = network(path)
        _, height, width = self.description["input_shape"]
        ratio = self.description["crop_ratio"]
        self._short_side = self.description.get("short_side")
        if ratio is not None and height == width:
            self._crop = CenterCrop(height, ratio)  # as in evaluation
        else:
            self._crop = lambda image: np.asarray(
                ImageOps.fit(image, (width, height), Image.BILINEAR)
            )
        self._normalize = Normalize(self.description["mean"], self.description["std"])

    def preprocess(self, images):
        """float32 (N, 3, H, W): cropped, resized and scaled as in the network's evaluation.

        Parameters
        ----------
        images : list
            Paths, PIL images, or uint8 arrays (H, W, 3) in RGB or (H, W) in grey.

        Raises
        ------
        UserError
            An image that cannot be read, or an array of another type or shape.
        """
        return self._normalize(np.stack([self._crop(_photo(image)) for image in images]))

    def logits(self, images):
        """float32 (N, classes) of a list of images, see :meth:`preprocess`."""
        steps = range(0, len(images), self.batch_size)
        batches = (self.preprocess(images[start : start + self.batch_size]) for start in steps)
        outputs = [self._network(mx.nd.array(each)).asnumpy() for each in batches]
        return np.concatenate(outputs)[:, : len(self.labels)]

    def __call__(self, images, top=5):
        """What the network says of each image, as its task decodes it.

        Returns
        -------
        list
            Of classification: for each image its ``top`` most probable labels with their
            probabilities, a list of (str, float).  Of segmentation: for each image a
            :class:`~openaff.tasks.segmentation.ClassMap` of its size; the network sees it as its
            evaluation did, with the short side that the export names, if any.

        Raises
        ------
        UserError
            No images, or see :meth:`preprocess`.
        """
        if isinstance(images, (str, pathlib.Path, Image.Image)):
            raise UserError("a list of images is needed: write [image]")
        if not len(images):
            raise UserError("there are no images to predict")
        if self.task.dense:
            return [self._map(_photo(image)) for image in images]
        return self.task.decode(self.logits(images), self.labels, positive_int("top", top))

    def _map(self, photo):
        """What a network of any input size says of one photograph, at its size."""
        seen = photo
        if self._short_side:
            scale = self._short_side / min(photo.size)
            sides = [max(1, round(scale * side)) for side in photo.size]
            if sides[0] * sides[1] > LARGEST:
                raise UserError(
                    "a photograph of {} x {} is too long to be seen as {} x {}: crop it".format(
                        *photo.size, *sides
                    )
                )
            seen = photo.resize(sides, Image.BILINEAR)
        outputs = self._network(mx.nd.array(self._normalize(np.asarray(seen)[None]))).asnumpy()
        (decoded,) = self.task.decode(outputs, self.labels)
        return decoded.resized(photo.height, photo.width)


def _photo(image):
    """A PIL image in RGB."""
    if isinstance(image, Image.Image):
        return ImageOps.exif_transpose(image).convert("RGB")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise UserError(
                f"an array must be uint8 (H, W, 3) or (H, W), not {image.dtype} {image.shape}"
            )
        return Image.fromarray(image).convert("RGB")
    return read_photo(image)
