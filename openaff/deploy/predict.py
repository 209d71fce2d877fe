"""Running an exported network on photographs."""

import pathlib

import mxnet as mx
import numpy as np
from PIL import Image

from ..data.preprocessing import Preprocessing, photo
from ..tasks import TASKS
from ..utils.errors import UserError, positive_int
from .export import read_export
from .onnx_model import network

ENGINES = {"mxnet": "-symbol.json", "onnxruntime": ".onnx", "onnxruntime-int8": "-int8.onnx"}


class Predictor:
    """An exported network with its recorded preprocessing.

    Parameters
    ----------
    folder : path-like
        What :func:`openaff.deploy.export.export_folder` wrote.
    engine : str, optional
        ``mxnet``, ``onnxruntime`` or ``onnxruntime-int8``; by default ONNX Runtime in float32, or
        MXNet where there is no ONNX file.
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
        else:
            self._network = network(path)
        keys = ("input_shape", "mean", "std", "crop_ratio")
        self.preprocess = Preprocessing(
            *(self.description[key] for key in keys),
            dense=self.task.dense,
            short_side=self.description.get("short_side"),
        )

    def logits(self, images):
        """float32 (N, classes) of a list of images.

        They are paths, PIL images, or uint8 arrays (H, W, 3) in RGB or (H, W) in grey; see
        :class:`~openaff.data.preprocessing.Preprocessing`.
        """
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
            No images, or one that cannot be read.
        """
        if isinstance(images, (str, pathlib.Path, Image.Image)):
            raise UserError("a list of images is needed: write [image]")
        if not len(images):
            raise UserError("there are no images to predict")
        if self.task.dense:
            return [self._map(photo(image)) for image in images]
        return self.task.decode(self.logits(images), self.labels, positive_int("top", top))

    def _map(self, image):
        """What a network of any input size says of one PIL image, at its size."""
        outputs = self._network(mx.nd.array(self.preprocess([image]))).asnumpy()
        (decoded,) = self.task.decode(outputs, self.labels)
        return decoded.resized(image.height, image.width)
