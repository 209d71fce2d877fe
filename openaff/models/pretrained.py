"""Networks with the parameters of a file, and a table of the published files."""

import fnmatch
from dataclasses import dataclass
from typing import Any, Dict, Optional

from ..utils.registry import Registry
from . import create_model
from .parameters import count_outputs, load_parameters, read_parameters


def load_model(model, path, ctx=None, /, **options):
    """The hybridised network ``model`` with the parameters of ``path``.

    It gets as many outputs as the file has, unless ``num_classes`` is among ``options``; see
    :func:`~openaff.create_model` and :func:`load_parameters`.
    """
    options.setdefault("num_classes", count_outputs(read_parameters(path, model)))
    net = create_model(model, **options)
    load_parameters(net, path, ctx, model)
    net.hybridize(static_alloc=True)
    return net


@dataclass(frozen=True)
class PublishedCheckpoint:
    """One of the authors' files of 2020-11, and what its figure means.

    Its input is scaled as the record of its data set says, see :mod:`openaff.data`.
    """

    name: str  # data set, the authors' folder, figure
    model: str
    options: Dict[str, Any]  # of the model, where a default is not relied on
    dataset: str
    labels: Optional[str]  # fine or coarse
    classes: int  # outputs in use: the first ones
    outputs: int
    metric: str
    score: float  # a fraction
    selection: str  # how the file was chosen


def _cifar100(folder, network, labels, score, epochs=640, earlier=""):
    model, options = network
    return PublishedCheckpoint(
        name=f"cifar100/{folder}/{score:.4f}",
        model=model,
        options=options,
        dataset="cifar100",
        labels=labels,
        classes={"fine": 100, "coarse": 20}[labels],
        outputs=100,
        metric="top-1 accuracy",
        score=score,
        selection=f"best of {epochs} epochs, chosen on the test split{earlier}",
    )


def _imagenet(folder, model, score):
    return PublishedCheckpoint(
        name=f"imagenet/{folder}/{score:.4f}",
        model=model,
        options={"deep_stem": True, "avg_down": True},
        dataset="imagenet",
        labels=None,
        classes=1000,
        outputs=1000,
        metric="top-1 error",
        score=score,
        selection="best of 240 epochs, chosen on the validation split",
    )


_RESNET32 = ("aff_cifar_resnet32", {"width_multiplier": 4})
_RESNEXT38 = ("aff_cifar_resnext38_32x4d", {})
_RESNEXT47 = ("aff_cifar_resnext47_32x4d", {})

PUBLISHED = Registry("published checkpoint")

# The files of 2020-09 are left out: there is no list of their parameters to check a network by.
for _checkpoint in (
    _cifar100("AFF-ResNet-32", _RESNET32, "fine", 0.8357),
    _cifar100("AFF-ResNeXt-47-32x4d", _RESNEXT47, "fine", 0.8538),
    _cifar100("AFF-ResNet-32/superclasses", _RESNET32, "coarse", 0.9031, epochs=526),
    _cifar100(
        "AFF-ResNet-32/superclasses", _RESNET32, "coarse", 0.9078, earlier=", continued from 0.9031"
    ),
    _cifar100("AFF-ResNeXt-38-32x4d", _RESNEXT38, "coarse", 0.9065),
    _cifar100(
        "AFF-ResNeXt-38-32x4d", _RESNEXT38, "coarse", 0.9123, earlier=", continued from 0.9066"
    ),
    _cifar100("AFF-ResNeXt-47-32x4d/superclass", _RESNEXT47, "coarse", 0.9091),
    _cifar100(
        "AFF-ResNeXt-47-32x4d/superclass",
        _RESNEXT47,
        "coarse",
        0.9184,
        earlier=", continued twice (0.9091, 0.9147)",
    ),
    _imagenet("AFF-ResNet-50", "aff_resnet50", 0.202803),
    _imagenet("AFF-ResNeXt-50", "aff_resnext50_32x4d", 0.202766),
    _imagenet("iAFF-ResNet-50", "iaff_resnet50", 0.202159),
    _imagenet("iAFF-ResNeXt-50", "iaff_resnext50_32x4d", 0.197829),
):
    PUBLISHED.register(_checkpoint.name)(_checkpoint)


def list_published(pattern="*"):
    """Sorted names of the published checkpoints that match a shell-style ``pattern``."""
    return sorted(fnmatch.filter(PUBLISHED, pattern))


def load_published(name, path, ctx=None):
    """The hybridised network of a published checkpoint, from the authors' file ``path``.

    Returns
    -------
    net : HybridBlock
    checkpoint : PublishedCheckpoint

    Raises
    ------
    UserError
        An unknown name, or another file: see :func:`load_parameters`.
    """
    checkpoint = PUBLISHED[name]
    options = dict(checkpoint.options, num_classes=checkpoint.outputs)
    return load_model(checkpoint.model, path, ctx, **options), checkpoint
