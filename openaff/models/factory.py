"""Networks by name: ``<fusion>_<backbone>``, or a bare backbone."""

import fnmatch
import inspect
import re

from ..fusion import FUSIONS
from ..utils.errors import UserError, positive_int, suggest

_BACKBONES = []  # (compiled pattern of the name, builder, names to list)


def register_backbone(pattern, examples):
    """Decorator: ``builder(*numbers, fusion=..., num_classes=..., **options)`` for a family.

    Parameters
    ----------
    pattern : str
        Regular expression of the family's names; its groups are the builder's first arguments,
        as integers.
    examples : list of str
        The names to list.
    """

    def add(builder):
        _BACKBONES.append((re.compile(pattern), builder, tuple(examples)))
        return builder

    return add


def _find(name):
    for pattern, builder, _ in _BACKBONES:
        match = pattern.fullmatch(name)
        if match:
            return builder, [int(group) for group in match.groups()]
    return None


def list_models(pattern="*"):
    """Sorted model ids that match a shell-style ``pattern``, such as ``"aff_cifar_*"``.

    Families take more depths than are listed: any 6b + 2 for ``cifar_resnet``, for example.
    """
    names = [
        f"{fusion}_{example}"
        for fusion in FUSIONS
        for _, _, examples in _BACKBONES
        for example in examples
    ]
    return sorted(fnmatch.filter(names, pattern))


def create_model(name, fusion=None, num_classes=None, **options):
    """Build a network by name; initialise or load its parameters before use.

    Parameters
    ----------
    name : str
        A model id ``<fusion>_<backbone>`` (``aff_cifar_resnet32``), or a bare backbone
        (``cifar_resnet32``), see :func:`list_models`.
    fusion : str or callable, optional
        For a bare backbone: a fusion's key or class name, a :class:`~openaff.fusion.Fusion`
        class, or one's own ``f(channels) -> HybridBlock``.  By default the plain sum.
    num_classes : int, optional
        Outputs, by default the published network's.
    options
        The family's options, such as ``width_multiplier`` or ``first_fused_stage``.

    Returns
    -------
    mxnet.gluon.HybridBlock
        float (N, 3, H, W) -> logits, float (N, num_classes).

    Raises
    ------
    UserError
        An unknown name or option, a fusion given twice, or an impossible value.

    Examples
    --------
    >>> import openaff
    >>> net = openaff.create_model("aff_cifar_resnet8", num_classes=10, width_multiplier=1)
    """
    found = _find(name)
    if found is None:
        key, _, backbone = name.partition("_")
        found = _find(backbone) if key in list(FUSIONS) else None
        if found is None:
            near = suggest(name, list_models() + _backbone_names())
            raise UserError(f"unknown model {name!r}{near}; openaff.list_models() lists the names")
        if fusion is not None:
            raise UserError(
                f"the name {name!r} has a fusion already: leave fusion={fusion!r} out, or name "
                f"the backbone {backbone!r}"
            )
        fusion = key
    builder, numbers = found
    if num_classes is not None:
        options["num_classes"] = positive_int("num_classes", num_classes)
    _check_options(name, builder, options)
    return builder(*numbers, fusion="add" if fusion is None else fusion, **options)


def _backbone_names():
    return [example for _, _, examples in _BACKBONES for example in examples]


def _check_options(name, builder, options):
    """Refuse unknown options, and values of another kind than the default's."""
    known = {
        parameter.name: parameter.default
        for parameter in inspect.signature(builder).parameters.values()
        if parameter.default is not parameter.empty and parameter.name != "fusion"
    }
    for option, value in options.items():
        if option not in known:
            raise UserError(
                "{} has no option {!r}{} (its options: {})".format(
                    name, option, suggest(option, known), ", ".join(known)
                )
            )
        if isinstance(known[option], bool) and not isinstance(value, bool):
            raise UserError(f"{option} must be true or false, not {value!r}")
    if "norm_layer" not in known:
        return
    norm_layer = options.get("norm_layer", known["norm_layer"])
    norm_kwargs = options.get("norm_kwargs")
    if not callable(norm_layer):
        raise UserError(f"norm_layer must be a class of layers, not {norm_layer!r}")
    try:
        norm_layer(in_channels=1, **(norm_kwargs or {}))
    except (TypeError, AssertionError) as error:
        raise UserError(f"norm_kwargs={norm_kwargs!r}: {error}") from None
