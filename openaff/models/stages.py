"""What the families share: their options, their stages, the maps that stages give."""

import math
import numbers
from dataclasses import dataclass
from functools import partial
from typing import Any, Dict, NamedTuple, Optional

from mxnet.gluon import nn

from ..attention import check_norm
from ..blocks import Bottleneck, shortcut
from ..fusion import fusion_by_stage, fusion_factory
from ..utils.errors import UserError, positive_int
from ..utils.outline import outline


@dataclass(frozen=True)
class Options:
    """What every family can be built with; a family's subclass sets its own defaults.

    Parameters
    ----------
    fusion : str or callable
        See :func:`~openaff.fusion.fusion_factory`.
    num_classes : int
        Outputs.
    reduction : int, optional
        Reduction r of the fusion, by default the family's.
    doubled : bool, optional
        Whether the fusion's weighted sum has the factor 2, by default the family's.
    first_fused_stage : int
        From 1 on: stages before it use the plain sum. The number of stages + 1: all of them do.
    deep_stem : bool
        Three 3x3 convolutions instead of one convolution.
    avg_down : bool
        Average pooling before the shortcut's 1x1 convolution, as published in 2020-11. False: a
        strided convolution, as in 2020-09.
    last_gamma : bool
        Start every block's branch at 0 (gamma of its last batch norm).
    features_only : bool
        Give the list of stage outputs instead of logits.
    norm_layer, norm_kwargs
        The normalisation layer and its keyword arguments.

    Raises
    ------
    UserError
        A value of another kind.
    """

    fusion: Any = "add"
    num_classes: int = 1000
    reduction: Optional[int] = None
    doubled: Optional[bool] = None
    first_fused_stage: int = 1
    deep_stem: bool = False
    avg_down: bool = True
    last_gamma: bool = False
    features_only: bool = False
    norm_layer: Any = nn.BatchNorm
    norm_kwargs: Optional[Dict[str, Any]] = None

    def __post_init__(self):
        positive_int("num_classes", self.num_classes)
        for name, value in vars(self).items():
            if isinstance(getattr(type(self), name), bool) and not isinstance(value, bool):
                raise UserError(f"{name} must be true or false, not {value!r}")
        check_norm(self.norm_layer, self.norm_kwargs)

    @property
    def norm(self):
        """The normalisation as blocks take it: ``norm(in_channels=C, **more)``."""
        return partial(self.norm_layer, **(self.norm_kwargs or {}))


@dataclass(frozen=True)
class PostActOptions(Options):
    """Those of networks with a ReLU after every fusion.

    Parameters
    ----------
    use_se : bool
        Squeeze-and-excitation on every branch.
    """

    use_se: bool = False


def scaled(channels, multiplier):
    """Channels times a width multiplier, rounded to a whole number.

    Raises
    ------
    UserError
        The multiplier is no positive number, or so small that no channel is left.
    """
    number = isinstance(multiplier, numbers.Real) and not isinstance(multiplier, bool)
    if not number or not 0 < channels * multiplier < math.inf or round(channels * multiplier) < 1:
        raise UserError(
            f"width_multiplier must be a positive number that leaves a channel, not {multiplier!r}"
        )
    return round(channels * multiplier)


class Feature(NamedTuple):
    """What a stage gives: (N, channels, ceil(H / stride), ceil(W / stride))."""

    name: str  # of the stage, as in saved parameters
    channels: int
    stride: int


class StagedNet(nn.HybridBlock):
    """A network of stages.

    Parameters
    ----------
    stages : int
        How many.
    options : dict
        Fields of the class's ``Options``.

    Attributes
    ----------
    options : Options
        What it was built with.
    feature_info : list of Feature
        What each stage gives, the largest map first.
    head_names : tuple of str
        How the names of a classifier's parameters begin that a ``features_only`` network lacks;
        empty for a classifier.

    Inputs: float (N, 3, H, W), normalised. Outputs: logits, float (N, num_classes), or with
    ``features_only`` the list of all stages' outputs.

    Raises
    ------
    UserError
        Impossible options.
    """

    Options = Options
    fusion_defaults = {"reduction": 16}  # of the fusion's options
    stage_prefix = "stage"  # in Gluon's scope names
    __repr__ = outline

    def __init__(self, stages, options, prefix=None, params=None):
        super().__init__(prefix=prefix, params=params)
        self.options = options = self.Options(**options)
        asked = {"reduction": options.reduction, "doubled": options.doubled}
        for name, value in asked.items():
            if value is not None and options.first_fused_stage == stages + 1:
                raise UserError(f"{name}={value!r} has no effect: no stage is fused")
        factory = fusion_factory(
            options.fusion,
            **asked,
            defaults=self.fusion_defaults,
            norm_layer=options.norm_layer,
            norm_kwargs=options.norm_kwargs,
        )
        self._fusion_of = fusion_by_stage(factory, options.first_fused_stage, stages)
        self.feature_info = []
        self.head_names = ()

    def make_block(self, stage, first, in_channels, channels, stride):
        """A residual block; stages count from 1."""
        raise NotImplementedError

    def add_stage(self, number, stage):
        """Register a stage, and give its name."""
        self.features.add(stage)
        return f"features.{len(self.features) - 1}"

    def add_stages(self, blocks, widths, strides, in_channels, stride):
        """Build the stages.

        Parameters
        ----------
        blocks, widths, strides : sequence of int
            Of each stage: blocks, output channels, stride of the first block.
        in_channels, stride : int
            Of the stem's output.
        """
        for number, (count, channels, step) in enumerate(zip(blocks, widths, strides), start=1):
            stage = nn.HybridSequential(prefix=f"{self.stage_prefix}{number}_")
            with stage.name_scope():
                stage.add(self.make_block(number, True, in_channels, channels, step))
                for _ in range(count - 1):
                    stage.add(self.make_block(number, False, channels, channels, 1))
            stride, in_channels = stride * step, channels
            self.feature_info.append(Feature(self.add_stage(number, stage), channels, stride))

    def add_head(self, *layers):
        """Append ``layers`` to ``features`` and make ``output``, unless ``features_only``."""
        self.output = None
        if self.options.features_only:
            first = len(self.features)
            more = (f"features.{index}." for index in range(first, first + len(layers)))
            self.head_names = ("output.", *more)
        else:
            self.features.add(*layers)
            channels = self.feature_info[-1].channels
            self.output = nn.Dense(self.options.num_classes, in_units=channels)

    def hybrid_forward(self, F, x):
        if self.output is not None:
            return self.output(self.features(x))
        names, outputs = {feature.name for feature in self.feature_info}, []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if f"features.{index}" in names:
                outputs.append(x)
        return outputs


class PostActNet(StagedNet):
    """Stages of P, 2P, 4P, ... planes, times the blocks' expansion, with a ReLU at the end.

    Its blocks are made as :class:`~openaff.blocks.Bottleneck` is.
    """

    Options = PostActOptions
    first_pooled_stage = 1  # whose shortcut may average

    def build_stages(
        self, blocks, strides, in_channels, stride, block=Bottleneck, planes=64, **more
    ):
        """:meth:`add_stages` of ``block``, which gets the keyword arguments ``more``.

        ``planes``: P, of the first stage.
        """
        self._block, self._more = block, more
        widths = [block.expansion * planes * 2**index for index in range(len(blocks))]
        self.add_stages(blocks, widths, strides, in_channels, stride)

    def make_block(self, stage, first, in_channels, channels, stride):
        options, norm, downsample = self.options, self.options.norm, None
        if stride != 1 or in_channels != channels:
            pooled = options.avg_down and stage >= self.first_pooled_stage
            downsample = shortcut(channels, in_channels, stride, pooled, norm)
        return self._block(
            channels // self._block.expansion,
            in_channels,
            stride,
            downsample,
            self._fusion_of(stage),
            norm=norm,
            last_gamma=options.last_gamma,
            use_se=options.use_se,
            **self._more,
        )
