"""Feature pyramids for semantic segmentation, whose top-down sums are fusions: the long skip.

Feature Pyramid Networks (Lin et al., CVPR 2017), https://arxiv.org/abs/1612.03144; with fusion:
Attentional Feature Fusion (Dai et al., WACV 2021), section 4.  The head is that of gluoncv's FCN
(Long et al., CVPR 2015), https://arxiv.org/abs/1411.4038.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from mxnet.gluon import nn

from ..attention import GlobalPool
from ..blocks import (
    BasicBlock,
    PyramidFusion,
    add_deep_stem,
    conv3x3,
    input_norm,
    resize_like,
)
from ..fusion import fusion_factory
from ..utils.errors import UserError, positive_int
from ..utils.outline import outline
from .factory import register_backbone
from .resnet import BASIC, BLOCKS, ResNet, ResNetOptions
from .resnext import DEPTHS as RESNEXT_DEPTHS
from .resnext import ResNeXt, ResNeXtOptions
from .stages import PostActNet, PostActOptions, scaled

# Depths that list_models shows; the formula takes any 6b + 2 that is none of ImageNet's.
DEPTHS = (8, 14, 20, 26)


# --- The paper's host -----------------------------------------------------------------------------


@dataclass(frozen=True)
class SmallResNetOptions(PostActOptions):
    """See :class:`~openaff.models.stages.Options`.

    Parameters
    ----------
    deep_stem : bool
        Three 3x3 convolutions, the first strided, and a strided pooling. False, for small images:
        one 3x3 convolution, no stride and no pooling.
    width_multiplier : float
        t; the authors' networks for segmentation have 1 and 4. The first stage's channels are
        rounded.
    """

    deep_stem: bool = True
    avg_down: bool = False
    width_multiplier: float = 4


class SmallResNet(PostActNet):
    """Three stages of b basic blocks (ResNet v1) with 16t, 32t and 64t channels.

    Parameters
    ----------
    depth : int
        6b + 2, for b blocks per stage.
    options
        See :class:`SmallResNetOptions`. The deep stem has 8t, 8t and 16t channels.

    Raises
    ------
    UserError
        A depth that is not 6b + 2, or an impossible option.
    """

    Options = SmallResNetOptions
    fusion_defaults = {"reduction": 4}

    def __init__(self, depth, prefix=None, params=None, **options):
        super().__init__(3, options, prefix, params)
        if depth < 8 or (depth - 2) % 6:
            raise UserError(
                f"no feature pyramid has a host of depth {depth}: it must be 6b + 2 (8, 14, 20, "
                f"...), or one of {sorted(BLOCKS)} for a ResNet of ImageNet"
            )
        options, norm = self.options, self.options.norm
        channels = scaled(16, options.width_multiplier)
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            self.features.add(input_norm(norm, 3))
            if options.deep_stem:
                add_deep_stem(self.features, channels, channels // 2, norm, stride=2)
            else:
                self.features.add(conv3x3(channels, 3))
            self.features.add(norm(in_channels=channels), nn.Activation("relu"))
            if options.deep_stem:
                self.features.add(nn.MaxPool2D(3, strides=2, padding=1))
            stride = 4 if options.deep_stem else 1
            blocks = ((depth - 2) // 6,) * 3
            self.build_stages(blocks, (1, 2, 2), channels, stride, BasicBlock, channels)
            self.add_head(GlobalPool())


# --- Pyramids -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FPNOptions:
    """What every pyramid has beside the options of its host, which are among its own.

    ``fusion``, ``reduction`` and ``doubled`` are those of the pyramid's sums,
    ``first_fused_stage`` is that of the host.

    Parameters
    ----------
    host_fusion : str or callable
        Fusion in the blocks of the host; see :func:`~openaff.fusion.fusion_factory`.
    dropout : float
        Share of the head's values that training drops.

    Raises
    ------
    UserError
        A value of another kind.
    """

    num_classes: int = 1
    host_fusion: Any = "add"
    dropout: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if self.host_fusion == "add" and self.first_fused_stage != type(self).first_fused_stage:
            raise UserError(
                f"first_fused_stage={self.first_fused_stage!r} has no effect: the host has the "
                "plain sum; it goes with host_fusion"
            )
        number = isinstance(self.dropout, (int, float)) and not isinstance(self.dropout, bool)
        if not number or not 0 <= self.dropout < 1:
            raise UserError(f"dropout must be a number in [0, 1), not {self.dropout!r}")


class FPN(nn.HybridBlock):
    """A feature pyramid on a host network, and a head for semantic segmentation.

    Parameters
    ----------
    numbers
        What the host's class takes: a depth, and of ResNeXt the groups.
    options
        See :class:`FPNOptions`.

    Attributes
    ----------
    options : Options
        What it was built with.
    bottom_up : StagedNet
        The host, ``features_only``: :func:`~openaff.models.parameters.load_parameters` loads a
        classifier's file into it.
    feature_info : list of Feature
        What each level of the pyramid gives, the largest map first.
    head_names : tuple of str
        How the names of the parameters begin that a ``features_only`` network lacks.

    Inputs: float (N, 3, H, W), normalised, of any height and width; where the host has
    ``avg_down``, at least 17 pixels. Outputs: logits, float (N, num_classes, H, W), or with
    ``features_only`` the list of all levels.

    Raises
    ------
    UserError
        Impossible options, or what the host refuses.
    """

    Options = None
    host = None  # the bottom-up network's class
    fusion_defaults = {"reduction": 16}  # of the options of the pyramid's fusions
    __repr__ = outline

    def __init__(self, *numbers, prefix=None, params=None, **options):
        super().__init__(prefix=prefix, params=params)
        self.options = options = self.Options(**options)
        norm = {"norm_layer": options.norm_layer, "norm_kwargs": options.norm_kwargs}
        fusion = fusion_factory(
            options.fusion, options.reduction, options.doubled, self.fusion_defaults, **norm
        )
        with self.name_scope():
            self.bottom_up = self.host(*numbers, prefix="bottom_up_", **self._host_options())
            *levels, top = self.bottom_up.feature_info
            self.top_down = nn.HybridSequential(prefix="top_down_")
            with self.top_down.name_scope():
                for low, high in zip(levels, [*levels[1:], top]):
                    self.top_down.add(PyramidFusion(fusion, low.channels, high.channels, **norm))
            self.feature_info = [
                low._replace(name=f"top_down.{level}") for level, low in enumerate(levels)
            ]
            self.feature_info.append(top._replace(name=f"bottom_up.{top.name}"))
            self._add_head(self.feature_info[0].channels)

    def _host_options(self):
        names = {field.name for field in dataclasses.fields(self.host.Options)}
        shared = {name: value for name, value in vars(self.options).items() if name in names}
        for name in ("num_classes", "reduction", "doubled"):
            del shared[name]
        return {**shared, "fusion": self.options.host_fusion, "features_only": True}

    def _add_head(self, channels):
        """A 3x3 convolution to a fourth of the channels, then a 1x1 to the classes."""
        options, names = self.options, ("head.", "output.")
        self.head_names = names if options.features_only else ()
        self.head = self.output = None
        if not options.features_only:
            hidden = positive_int("a fourth of the pyramid's channels", channels // 4)
            self.head = nn.HybridSequential(prefix="head_")
            with self.head.name_scope():
                self.head.add(
                    conv3x3(hidden, channels),
                    options.norm(in_channels=hidden),
                    nn.Activation("relu"),
                    nn.Dropout(options.dropout),
                )
            self.output = nn.Conv2D(options.num_classes, 1, in_channels=hidden)

    def hybrid_forward(self, F, x):
        maps = list(self.bottom_up(x))
        for level in reversed(range(len(self.top_down))):
            maps[level] = self.top_down[level](maps[level], maps[level + 1])
        if self.output is None:
            return maps
        return resize_like(F, self.output(self.head(maps[0])), x)


@dataclass(frozen=True)
class FPNResNetOptions(FPNOptions, ResNetOptions):
    """See :class:`FPNOptions` and :class:`~openaff.models.resnet.ResNetOptions`."""


@dataclass(frozen=True)
class FPNResNeXtOptions(FPNOptions, ResNeXtOptions):
    """See :class:`FPNOptions` and :class:`~openaff.models.resnext.ResNeXtOptions`."""


@dataclass(frozen=True)
class FPNSmallResNetOptions(FPNOptions, SmallResNetOptions):
    """See :class:`FPNOptions` and :class:`SmallResNetOptions`."""


FACTS = {"task": "segmentation", "input_shape": (3, 480, 480)}


@register_backbone(
    r"fpn_resnet(50|101|152)",
    [f"fpn_resnet{depth}" for depth in BLOCKS if depth not in BASIC],
    strides=(4, 8, 16, 32),
    widths=(256, 512, 1024, 2048),
    **FACTS,
)
@register_backbone(
    r"fpn_resnet(18|34)",
    [f"fpn_resnet{depth}" for depth in BASIC],
    strides=(4, 8, 16, 32),
    widths=(64, 128, 256, 512),
    **FACTS,
)
class FPNResNet(FPN):
    """A pyramid on the ResNet of ImageNet; see :class:`FPN`."""

    Options = FPNResNetOptions
    host = ResNet


@register_backbone(
    r"fpn_resnext([1-9]\d{0,3})_(32|64)x4d",
    [f"fpn_resnext{depth}_{groups}x4d" for groups in (32, 64) for depth in RESNEXT_DEPTHS],
    strides=(4, 8, 16, 32),
    widths=(256, 512, 1024, 2048),
    **FACTS,
)
class FPNResNeXt(FPN):
    """A pyramid on the ResNeXt of ImageNet; see :class:`FPN`."""

    Options = FPNResNeXtOptions
    host = ResNeXt


@register_backbone(  # entered after those above: 50 and 152 are 6b + 2 too, and name theirs
    r"fpn_resnet([1-9]\d{0,3})",
    [f"fpn_resnet{depth}" for depth in DEPTHS],
    strides=(4, 8, 16),
    widths=(64, 128, 256),
    **FACTS,
)
class FPNSmallResNet(FPN):
    """A pyramid on the paper's host; see :class:`FPN`.

    Of the depths 6b + 2, 50 and 152 are those of ImageNet's ResNet, whose pyramid has their names.
    """

    Options = FPNSmallResNetOptions
    host = SmallResNet
    fusion_defaults = {"reduction": 4}
