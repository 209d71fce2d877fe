"""Knowledge distillation: learn from a teacher network's outputs as well."""

import mxnet as mx
from mxnet import autograd, gluon

from ..models.parameters import load_parameters
from ..models.pretrained import load_model
from ..utils.errors import UserError, last_line, suggest
from ..utils.imports import import_gluoncv
from ..utils.packaged import pip_install

GLUONCV = "gluoncv:"


class Distillation(gluon.Block):
    """``(1 - weight) * loss + weight * T^2 * KL(teacher || student)``, (N,), float32.

    Both distributions are softmaxes of logits divided by the temperature T.  Distilling the
    Knowledge in a Neural Network (Hinton et al., 2015), section 2, https://arxiv.org/abs/1503.02531

    Parameters
    ----------
    loss : callable
        ``loss(logits, targets)`` gives (N,).
    teacher : HybridBlock
        float32 (N, 3, H, W) -> logits (N, K); runs in inference mode and is not trained.
    weight, temperature : float
        As in the formula.
    """

    def __init__(self, loss, teacher, weight=0.5, temperature=4.0, **kwargs):
        super().__init__(**kwargs)
        self.loss = loss
        self._teacher = [teacher]  # in a list, so that it is not a child and is not trained
        self.weight = weight
        self.temperature = temperature

    def forward(self, logits, targets, images):
        with autograd.pause():
            expected = self._teacher[0](images.astype("float32", copy=False)) / self.temperature
            probabilities = expected.softmax()
            entropy = -(probabilities * expected.log_softmax()).sum(axis=1)
        ours = (logits.astype("float32") / self.temperature).log_softmax()
        divergence = -(probabilities * ours).sum(axis=1) - entropy
        loss = self.loss(logits, targets)
        return (1 - self.weight) * loss + self.weight * self.temperature**2 * divergence


def load_teacher(config, classes, image_shape, devices):
    """The teacher that a :class:`~openaff.training.config.DistillationConfig` names.

    Parameters
    ----------
    config : DistillationConfig
        Its ``teacher`` is a model id of openaff, or ``gluoncv:NAME``.
    classes : int
        The number of outputs that it must have.
    image_shape : tuple of int
        (3, H, W) of the images.
    devices : list of mx.Context
        Where to put it.

    Raises
    ------
    UserError
        The name is unknown, the file does not match the network, or the outputs do not match.
    """
    if config.teacher.startswith(GLUONCV):
        teacher = _gluoncv_model(config.teacher[len(GLUONCV) :], classes, config.options)
        load_parameters(teacher, config.params, devices, config.teacher)
        teacher.hybridize(static_alloc=True)
    else:
        teacher = load_model(config.teacher, config.params, devices, **config.options)
    try:
        shape = teacher(mx.nd.zeros((1,) + image_shape, ctx=devices[0])).shape
    except mx.base.MXNetError as error:
        raise UserError(
            f"distillation.teacher {config.teacher} cannot take images of {image_shape}: "
            f"{last_line(error)}"
        ) from None
    if len(shape) != 2:
        raise UserError(
            f"distillation.teacher {config.teacher} gives maps, and distillation is for networks "
            "that give one number per class"
        )
    if shape[1] != classes:
        raise UserError(
            f"distillation.teacher {config.teacher} has {shape[1]} outputs in {config.params}, "
            f"but the data set has {classes} classes"
        )
    return teacher


def _gluoncv_model(name, classes, options):
    try:
        model_zoo = import_gluoncv()
    except ImportError as error:
        raise UserError(
            f"the teacher {GLUONCV}{name} needs gluoncv ({error}): {pip_install('gluoncv')}"
        ) from None

    known = model_zoo.get_model_list()
    if name.lower() not in known:
        raise UserError(f"gluoncv has no network {name!r}{suggest(name.lower(), known)}")
    try:
        return model_zoo.get_model(name, pretrained=False, classes=classes, **options)
    except TypeError as error:
        raise UserError(f"distillation.options: {error}") from None
