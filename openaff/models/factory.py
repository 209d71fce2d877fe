"""Networks by name: ``<fusion>_<backbone>``, or a bare backbone."""

import dataclasses
import fnmatch
import inspect
import re
from dataclasses import dataclass
from typing import Callable, NamedTuple, Optional, Tuple

from ..fusion import FUSIONS
from ..utils.errors import UserError, positive_int, suggest
from .bundled import load_pretrained, settle_options


@dataclass(frozen=True)
class Backbone:
    """A family of networks, and what one must know to use them; see :func:`register_backbone`."""

    network: Callable
    pattern: str
    names: Tuple[str, ...]
    input_shape: Tuple[int, int, int]
    strides: Tuple[int, ...] = ()
    widths: Tuple[int, ...] = ()
    task: str = "classification"

    @property
    def options(self):
        """Name -> default of all options, but for the fusion."""
        if hasattr(self.network, "Options"):
            fields = dataclasses.fields(self.network.Options)
        else:
            parameters = inspect.signature(self.network).parameters.values()
            fields = [each for each in parameters if each.default is not each.empty]
        return {field.name: field.default for field in fields if field.name != "fusion"}

    @property
    def num_classes(self):
        """Outputs by default."""
        return self.options["num_classes"]

    def numbers(self, name):
        """The network's first arguments that ``name`` stands for, or None."""
        match = re.fullmatch(self.pattern, name)
        return match and tuple(map(int, match.groups()))


class ModelInfo(NamedTuple):
    """What is known of a model id."""

    fusion: Optional[str]  # its key; None of a bare backbone
    name: str  # of the backbone
    backbone: Backbone  # the backbone's family


_BACKBONES = []


def register_backbone(pattern, names, **facts):
    """Decorator: ``network(*numbers, fusion=..., num_classes=..., **options)`` for a family.

    Of several patterns that a name fits, the one entered first counts.

    Parameters
    ----------
    pattern : str
        Regular expression of the family's names; its groups are the network's first arguments,
        integers.
    names : sequence of str
        The names to list; there may be more.
    facts
        ``input_shape``: of the images that it is made for, (3, H, W).  ``strides``, ``widths``:
        of each stage's output, with the default options.  ``task``: the task's key.
    """

    def add(network):
        _BACKBONES.append(Backbone(network, pattern, tuple(names), **facts))
        return network

    return add


def model_info(name):
    """What is known of a model id, or of a bare backbone.

    Returns
    -------
    ModelInfo

    Raises
    ------
    UserError
        An unknown name.

    Examples
    --------
    >>> from openaff.models import model_info
    >>> model_info("aff_resnet50").backbone.input_shape
    (3, 224, 224)
    """
    key, _, rest = str(name).partition("_")
    for fusion, backbone in ((None, str(name)), (key, rest)):
        for family in _BACKBONES:
            if family.numbers(backbone) and (fusion is None or fusion in list(FUSIONS)):
                return ModelInfo(fusion, backbone, family)
    known = [*list_models(), *(each for family in _BACKBONES for each in family.names)]
    raise UserError(
        f"unknown model {name!r}{suggest(name, known)}; openaff.list_models() lists the names"
    )


def fusion_of(name, options):
    """What :func:`create_model` fuses with in the network ``name`` with ``options``: a key or such.

    Raises
    ------
    UserError
        An unknown name.
    """
    return model_info(name).fusion or options.get("fusion") or "add"


def list_models(pattern="*"):
    """Sorted model ids that match a shell-style ``pattern``, such as ``"aff_cifar_*"``.

    Families take more depths than are listed: any 6b + 2 for ``cifar_resnet``, for example.
    """
    backbones = [name for family in _BACKBONES for name in family.names]
    names = [f"{fusion}_{backbone}" for fusion in FUSIONS for backbone in backbones]
    return sorted(fnmatch.filter(names, pattern))


def create_model(name, fusion=None, num_classes=None, pretrained=None, **options):
    """Build a network by name; initialise or load its parameters before use.

    Parameters
    ----------
    name : str
        A model id ``<fusion>_<backbone>`` (``aff_cifar_resnet32``), or a bare backbone
        (``cifar_resnet32``), see :func:`list_models`.
    fusion : str or callable, optional
        For a bare backbone, what :func:`~openaff.fusion.fusion_factory` takes: a fusion's key or
        class name, ``"module:Class"``, a class, or one's own ``f(channels) -> HybridBlock``.  By
        default the plain sum.
    num_classes : int, optional
        Outputs, by default the published network's.
    pretrained : str, optional
        A key of :func:`~openaff.list_pretrained`: weights in the package, loaded on the CPU.  They
        settle ``num_classes`` and the options, which may be left out.
    options
        The family's options, such as ``width_multiplier`` or ``first_fused_stage``; see
        :class:`~openaff.models.stages.Options`.

    Returns
    -------
    mxnet.gluon.HybridBlock
        float (N, 3, H, W) -> logits, float (N, num_classes); of networks for segmentation
        (N, num_classes, H, W).

    Raises
    ------
    UserError
        An unknown name, key or option, a fusion given twice, an impossible value, or one that
        contradicts ``pretrained``; see also :func:`~openaff.models.bundled.load_pretrained`.

    Examples
    --------
    >>> import openaff
    >>> net = openaff.create_model("aff_cifar_resnet8", num_classes=10, width_multiplier=1)
    """
    info = model_info(name)
    if fusion is not None and info.fusion is not None:
        raise UserError(
            f"the name {name!r} has a fusion already: leave fusion={fusion!r} out, or name "
            f"the backbone {info.name!r}"
        )
    family, known = info.backbone, info.backbone.options
    for option in options:
        if option not in known:
            raise UserError(
                "{} has no option {!r}{} (its options: {})".format(
                    name, option, suggest(option, known), ", ".join(known)
                )
            )
    if pretrained is not None:
        num_classes, options = settle_options(pretrained, name, fusion, num_classes, options, known)
    if num_classes is not None:
        options["num_classes"] = positive_int("num_classes", num_classes)
    options["fusion"] = info.fusion or ("add" if fusion is None else fusion)
    net = family.network(*family.numbers(info.name), **options)
    if pretrained is not None:
        load_pretrained(net, pretrained)
    return net
