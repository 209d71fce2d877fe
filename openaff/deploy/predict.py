"""Running a network on photographs: an export, or weights in the package."""

import pathlib

import mxnet as mx
import numpy as np
from PIL import Image

from ..data.preprocessing import Preprocessing, photo
from ..tasks import TASKS
from ..utils.errors import UserError, positive_int
from .subject import export_subject, pretrained_subject


class Predictor:
    """An exported network with its recorded preprocessing.

    Parameters
    ----------
    folder : path-like
        What :func:`openaff.deploy.export.export_folder` wrote.
    engine : str
        A key of :data:`~openaff.deploy.engines.ENGINES`, or ``auto``: the fastest that is
        installed.
    batch_size : int
        Images at once.
    precision : str, optional
        Of OpenVINO: ``f32``, the default, or ``auto``, its choice for this processor.

    Attributes
    ----------
    engine, precision : str
        What runs it, and what that computes in; see :class:`~openaff.deploy.engines.Engine`.
    dataset : str or None
        What the network was trained on.
    labels : list of str
        The names of its classes.

    Raises
    ------
    UserError
        No export folder, a changed file, or what :class:`~openaff.deploy.engines.Engine` refuses.
    """

    def __init__(self, folder, engine="auto", batch_size=32, precision=None):
        self._settle(export_subject(folder, engine, precision), batch_size)
        self.engine, self.precision = self._network.name, self._network.precision

    @classmethod
    def pretrained(cls, key, batch_size=32):
        """The same for weights in the package, in MXNet.

        Raises
        ------
        UserError
            See :func:`~openaff.deploy.subject.pretrained_subject`.
        """
        predictor = cls.__new__(cls)
        predictor._settle(pretrained_subject(key), batch_size)
        predictor.engine, predictor.precision = "mxnet", "f32"
        return predictor

    def _settle(self, subject, batch_size):
        self.task, self.dataset = TASKS[subject.task], subject.dataset
        self.labels = list(subject.class_names)
        self.batch_size = positive_int("batch_size", batch_size)
        self._network = subject.net
        self.preprocess = Preprocessing(
            subject.input_shape,
            subject.mean,
            subject.std,
            subject.crop_ratio,
            dense=self.task.dense,
            short_side=subject.short_side,
        )

    def logits(self, images):
        """float32 (N, classes) of a list of images.

        They are paths, PIL images, or uint8 arrays (H, W, 3) in RGB or (H, W) in grey; see
        :class:`~openaff.data.preprocessing.Preprocessing`.

        Raises
        ------
        UserError
            No images, or one that cannot be read.
        """
        _check(images)
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
        _check(images)
        if self.task.dense:
            return [self._map(image) for image in images]
        return self.task.decode(self.logits(images), self.labels, positive_int("top", top))

    def _map(self, image):
        """What a network of any input size says of one image, at its size."""
        pixels = photo(image)
        named = None if isinstance(image, (Image.Image, np.ndarray)) else image
        seen = self.preprocess.see(pixels, named)
        outputs = self._network(mx.nd.array(self.preprocess.normalize(seen[None]))).asnumpy()
        (decoded,) = self.task.decode(outputs, self.labels)
        return decoded.resized(pixels.height, pixels.width)


def _check(images):
    one = (str, pathlib.Path, Image.Image)
    if isinstance(images, one) or getattr(images, "ndim", 4) < 4:
        raise UserError("a list of images is needed: write [image]")
    if not len(images):
        raise UserError("there are no images to predict")
