"""ResNeXt with a fusion in its blocks: the CIFAR and the ImageNet form.

Aggregated Residual Transformations (Xie et al., CVPR 2017), https://arxiv.org/abs/1611.05431;
with fusion: Attentional Feature Fusion (Dai et al., WACV 2021), section 4.
"""

from dataclasses import dataclass

from mxnet.gluon import nn

from ..attention import GlobalPool
from ..blocks import ResNeXtBlock, add_deep_stem, conv3x3
from ..utils.errors import UserError
from .factory import register_backbone
from .resnet import BLOCKS
from .stages import PostActNet, PostActOptions

# Depths that list_models shows; the formula takes any 9b + 2.
CIFAR_DEPTHS = (29, 38, 47)
DEPTHS = (50, 101, 152)


@dataclass(frozen=True)
class CIFARResNeXtOptions(PostActOptions):
    """See :class:`~openaff.models.stages.Options`; ``last_gamma`` as published."""

    num_classes: int = 100
    last_gamma: bool = True


@dataclass(frozen=True)
class ResNeXtOptions(PostActOptions):
    """See :class:`~openaff.models.stages.Options`; ``deep_stem``, ``last_gamma`` as published."""

    first_fused_stage: int = 3
    deep_stem: bool = True
    last_gamma: bool = True


@register_backbone(
    r"cifar_resnext([1-9]\d{0,3})_(32)x4d",
    [f"cifar_resnext{depth}_32x4d" for depth in CIFAR_DEPTHS],
    input_shape=(3, 32, 32),
    strides=(1, 2, 4),
    widths=(256, 512, 1024),
)
class CIFARResNeXt(PostActNet):
    """Three stages of b blocks with 64, 128 and 256 base channels.

    Parameters
    ----------
    depth : int
        9b + 2, for b blocks per stage.
    groups : int
        Groups of the blocks' 3x3 convolutions, of 4 channels each in the first stage.
    options
        See :class:`CIFARResNeXtOptions`. The deep stem has 32, 32 and 64 channels.

    Raises
    ------
    UserError
        A depth that is not 9b + 2, or an impossible option.
    """

    Options = CIFARResNeXtOptions

    def __init__(self, depth, groups=32, prefix=None, params=None, **options):
        super().__init__(3, options, prefix, params)
        if depth < 11 or (depth - 2) % 9:
            raise UserError(
                f"no CIFAR ResNeXt has depth {depth}: it must be 9b + 2 (11, 20, 29, 38, ...)"
            )
        norm, blocks = self.options.norm, ((depth - 2) // 9,) * 3
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            if self.options.deep_stem:
                add_deep_stem(self.features, 64, 32, norm)
            else:
                self.features.add(conv3x3(64, 3))
            self.features.add(norm(in_channels=64), nn.Activation("relu"))
            self.build_stages(blocks, (1, 2, 2), 64, 1, ResNeXtBlock, groups=groups)
            self.add_head(GlobalPool())


@register_backbone(
    r"resnext([1-9]\d{0,3})_(32|64)x4d",
    [f"resnext{depth}_{groups}x4d" for groups in (32, 64) for depth in DEPTHS],
    input_shape=(3, 224, 224),
    strides=(4, 8, 16, 32),
    widths=(256, 512, 1024, 2048),
)
class ResNeXt(PostActNet):
    """Four stages with 64, 128, 256 and 512 base channels.

    Parameters
    ----------
    depth : int
        50, 101 or 152.
    groups : int
        Groups of the blocks' 3x3 convolutions, of 4 channels each in the first stage.
    options
        See :class:`ResNeXtOptions`. The deep stem has 64, 64 and 128 channels, its first
        convolution is strided; otherwise one 7x7 of 64.

    Raises
    ------
    UserError
        Another depth, or an impossible option.
    """

    Options = ResNeXtOptions
    first_pooled_stage = 2

    def __init__(self, depth, groups=32, prefix=None, params=None, **options):
        super().__init__(4, options, prefix, params)
        if depth not in DEPTHS:
            raise UserError(f"no ResNeXt has depth {depth}: it is one of {list(DEPTHS)}")
        norm, channels = self.options.norm, 128 if self.options.deep_stem else 64
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            if self.options.deep_stem:
                add_deep_stem(self.features, channels, 64, norm, stride=2)
            else:
                self.features.add(nn.Conv2D(channels, 7, 2, 3, use_bias=False, in_channels=3))
            self.features.add(
                norm(in_channels=channels),
                nn.Activation("relu"),
                nn.MaxPool2D(3, strides=2, padding=1),
            )
            self.build_stages(BLOCKS[depth], (1, 2, 2, 2), channels, 4, ResNeXtBlock, groups=groups)
            self.add_head(GlobalPool())
