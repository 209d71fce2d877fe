"""Parameter files: checked before they are loaded, and a table of the published ones."""

import fnmatch
import pathlib
from dataclasses import dataclass
from typing import Any, Dict, Optional

from ..utils.errors import UserError
from ..utils.params import Damaged, read_arrays
from ..utils.registry import Registry
from . import create_model

OUTPUT_LAYERS = ("output", "fc")  # what networks call their last layer
SHOWN = 3  # names that a message lists of each kind of difference


def load_parameters(net, path, ctx=None, name=None):
    """Load what ``net.save_parameters`` wrote, after a check of every name and shape.

    Values of another type, such as the float16 of mixed training, are cast to the network's.  A
    ``features_only`` network also takes a classifier's file, and leaves its head.

    Parameters
    ----------
    net : Block
        Left as it is where anything is wrong.
    path : path-like
        A file of structural names (``features.1.weight``).
    ctx : mx.Context or list of mx.Context, optional
        Where to put the parameters of a network that is not initialised, by default the CPU.
    name : str, optional
        What messages call the network, by default its class.

    Raises
    ------
    UserError
        A file that is missing, no params file, truncated, exported, of Gluon's scope names, or
        another network's.
    """
    name = name or type(net).__name__
    arrays = _read(path, name)
    expected = {key: param.shape for key, param in net._collect_params_with_prefix().items()}
    head = tuple(getattr(net, "head_names", ()))
    arrays = {key: value for key, value in arrays.items() if not key.startswith(head)}
    problem = None if set(expected) & set(arrays) else _other_form(arrays)
    problem = problem or differences(expected, arrays)
    if problem:
        raise _refusal(path, name, problem)
    # Nothing is left over but a head that the network does not have.
    net.load_parameters(str(path), ctx=ctx, cast_dtype=True, ignore_extra=bool(head))


def load_with_new_outputs(net, path, name=None):
    """Load a file into an initialised network that may have another number of outputs.

    Where the file has another number, or no output layer, the network's own keeps its values.

    Parameters
    ----------
    net : Block
        Left as it is where anything is wrong.
    path : path-like
        What ``net.save_parameters`` wrote, or an exported ``NAME-0000.params``.
    name : str, optional
        What messages call the network, by default its class.

    Returns
    -------
    list of str
        The names of the parameters that keep their values.

    Raises
    ------
    UserError
        Any other difference, with its names; see :func:`load_parameters`.
    """
    name = name or type(net).__name__
    arrays = {
        key.partition(":")[2] if key.startswith(("arg:", "aux:")) else key: value
        for key, value in _read(path, name).items()
    }
    params = net._collect_params_with_prefix()
    outputs = [key for layer in OUTPUT_LAYERS for key in (f"{layer}.weight", f"{layer}.bias")]
    new = [key for key in outputs if key in params]
    if all(key in arrays and _fits(params[key].shape, arrays[key].shape) for key in new):
        new = []
    expected = {key: param.shape for key, param in params.items() if key not in new}
    arrays = {key: value for key, value in arrays.items() if key not in new}
    problem = None if set(expected) & set(arrays) else _other_form(arrays)
    problem = problem or differences(expected, arrays)
    if problem:
        raise _refusal(path, name, problem)
    for key, value in arrays.items():
        params[key].set_data(value.astype(params[key].dtype))
    return new


def load_model(model, path, ctx=None, /, **options):
    """The hybridised network ``model`` with the parameters of ``path``.

    It gets as many outputs as the file has, unless ``num_classes`` is among ``options``; see
    :func:`~openaff.create_model` and :func:`load_parameters`.
    """
    options.setdefault("num_classes", _count_outputs(_read(path, model)))
    net = create_model(model, **options)
    load_parameters(net, path, ctx, model)
    net.hybridize(static_alloc=True)
    return net


def _read(path, name):
    """Name -> NDArray of a params file."""
    path = pathlib.Path(path)
    try:
        arrays = read_arrays(path)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; name a file that save_parameters wrote"
        ) from None
    except Damaged as error:
        raise _refusal(
            path,
            name,
            f"it is damaged ({path.stat().st_size:,} bytes): {error}; copy or download it again",
        ) from None
    if not isinstance(arrays, dict):
        raise _refusal(path, name, "its arrays have no names; save it with save_parameters")
    return arrays


def _refusal(path, name, problem):
    return UserError(f"{path} does not hold the parameters of {name}: {problem}")


def _other_form(arrays):
    """What is wrong with names that are not structural, or None."""
    if any(key.startswith(("arg:", "aux:")) for key in arrays):
        return (
            "it is an exported network's file (arg: and aux: names), no checkpoint; load it with "
            "its symbol file by mx.gluon.SymbolBlock.imports, or take what save_parameters wrote"
        )
    if not any("." in key for key in arrays):
        return (
            f"it has Gluon's scope names (such as {next(iter(arrays))}), as collect_params().save "
            "writes them; load it where it was written and save it with save_parameters"
        )
    return None


def differences(expected, arrays):
    """Missing, unexpected and reshaped parameters in words, or None.

    ``expected``: name -> shape, 0 where the network does not know a size yet.
    """
    found = {key: array.shape for key, array in arrays.items()}
    missing = [f"{key} {expected[key]}" for key in expected if key not in found]
    unexpected = [f"{key} {found[key]}" for key in found if key not in expected]
    reshaped = [
        f"{key} expected {expected[key]} found {found[key]}"
        for key in expected
        if key in found and not _fits(expected[key], found[key])
    ]
    parts = [
        "{} {} ({}{})".format(
            len(names), kind, ", ".join(names[:SHOWN]), ", ..." if len(names) > SHOWN else ""
        )
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", reshaped),
        )
        if names
    ]
    return "; ".join(parts) + "; check the model's name and options" if parts else None


def _fits(expected, found):
    return len(expected) == len(found) and all(a in (0, b) for a, b in zip(expected, found))


def _count_outputs(arrays):
    """Rows of the output layer, or None where there is none of a known name."""
    names = (f"{layer}.bias" for layer in OUTPUT_LAYERS)
    return next((arrays[name].shape[0] for name in names if name in arrays), None)


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
