"""ResNeXt 32x4d with a fusion in its blocks: the CIFAR and the ImageNet form.

Aggregated Residual Transformations (Xie et al., CVPR 2017), https://arxiv.org/abs/1611.05431;
with fusion: Attentional Feature Fusion (Dai et al., WACV 2021), section 4.
"""

from mxnet.gluon import nn

from ..blocks import ResNeXtBlock, add_deep_stem, conv3x3, shortcut
from ..utils.errors import UserError
from .factory import register_backbone
from .resnet import BLOCKS
from .stages import StagedNet, make_stage, norm_and_fusion

# Depths that list_models shows; the formula takes any 9b + 2.
CIFAR_DEPTHS = (29, 38, 47)


class _ResNeXt(StagedNet):
    """Stages of ResNeXt blocks after a stem that the subclass appends to ``features``."""

    def _build(
        self, stem, blocks, pooled_stages, fusion, reduction, first_fused_stage, num_classes,
        avg_down, last_gamma, use_se, features_only, norm_layer, norm_kwargs,
    ):  # fmt: skip
        norm, stage_fusion = norm_and_fusion(
            fusion, reduction, 16, first_fused_stage, len(blocks), norm_layer, norm_kwargs
        )
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            in_channels = stem(self.features, norm)
            for number, count in enumerate(blocks, start=1):
                planes, stride = 32 * 2**number, 1 if number == 1 else 2
                pooled = avg_down and number in pooled_stages

                def make_block(
                    index, number=number, planes=planes, stride=stride, pooled=pooled,
                    before=in_channels,
                ):  # fmt: skip
                    if index > 0:
                        before, stride, downsample = 4 * planes, 1, None
                    else:
                        downsample = shortcut(4 * planes, before, stride, pooled, norm)
                    return ResNeXtBlock(
                        planes,
                        before,
                        stride,
                        downsample,
                        stage_fusion(number),
                        norm=norm,
                        last_gamma=last_gamma,
                        use_se=use_se,
                    )

                self.features.add(make_stage(f"stage{number}_", count, make_block))
                in_channels = 4 * planes
            head = [nn.GlobalAvgPool2D()]
            self._finish(len(blocks), head, num_classes, in_channels, features_only)


@register_backbone(
    r"cifar_resnext([1-9]\d{0,3})_32x4d",
    examples=[f"cifar_resnext{depth}_32x4d" for depth in CIFAR_DEPTHS],
)
class CIFARResNeXt(_ResNeXt):
    """Three stages of b blocks with 64, 128 and 256 base channels, 32 groups.

    Parameters
    ----------
    depth : int
        9b + 2, for b blocks a stage.
    fusion : str or callable
        See :func:`~openaff.fusion.fusion_factory`.
    num_classes : int
        Outputs.
    reduction : int, optional
        Reduction r of the fusion, by default 16.
    first_fused_stage : int
        1 to 4: stages before it use the plain sum (4: all of them).
    deep_stem : bool
        Three 3x3 convolutions (32, 32, 64) instead of one.
    avg_down : bool
        Average pooling before the shortcut's 1x1 convolution; false: a strided convolution.
    last_gamma : bool
        Start every block's branch at 0 (gamma of its last batch norm), as published.
    use_se : bool
        Squeeze-and-excitation on every branch.
    features_only : bool
        Give the list of stage outputs instead of logits.
    norm_layer, norm_kwargs
        The normalisation layer and its keyword arguments.

    Inputs: float (N, 3, H, W), normalised. Outputs: logits, float (N, num_classes).

    Raises
    ------
    UserError
        A depth that is not 9b + 2, or an impossible option.
    """

    def __init__(
        self,
        depth,
        fusion="add",
        num_classes=100,
        reduction=None,
        first_fused_stage=1,
        deep_stem=False,
        avg_down=True,
        last_gamma=True,
        use_se=False,
        features_only=False,
        norm_layer=nn.BatchNorm,
        norm_kwargs=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if depth < 11 or (depth - 2) % 9:
            raise UserError(
                f"no CIFAR ResNeXt has depth {depth}: it must be 9b + 2 (11, 20, 29, 38, ...)"
            )

        def stem(features, norm):
            if deep_stem:
                add_deep_stem(features, 64, 32, norm)
            else:
                features.add(conv3x3(64, 3))
            features.add(norm(in_channels=64), nn.Activation("relu"))
            return 64

        self._build(
            stem, ((depth - 2) // 9,) * 3, (1, 2, 3), fusion, reduction, first_fused_stage,
            num_classes, avg_down, last_gamma, use_se, features_only, norm_layer, norm_kwargs,
        )  # fmt: skip


@register_backbone(
    r"resnext([1-9]\d{0,3})_32x4d", examples=[f"resnext{depth}_32x4d" for depth in BLOCKS]
)
class ResNeXt(_ResNeXt):
    """Four stages with 64, 128, 256 and 512 base channels, 32 groups.

    Parameters
    ----------
    depth : int
        50, 101 or 152.
    fusion : str or callable
        See :func:`~openaff.fusion.fusion_factory`.
    num_classes : int
        Outputs.
    reduction : int, optional
        Reduction r of the fusion, by default 16.
    first_fused_stage : int
        1 to 5: stages before it use the plain sum (5: all of them).
    deep_stem : bool
        Three 3x3 convolutions (64, 64, 128; the first strided), as published; false: one 7x7 of 64.
    avg_down : bool
        Average pooling before the shortcut's 1x1 convolution, as published (not in stage 1, which
        has no stride); false: a strided convolution.
    last_gamma : bool
        Start every block's branch at 0 (gamma of its last batch norm), as published.
    use_se : bool
        Squeeze-and-excitation on every branch.
    features_only : bool
        Give the list of stage outputs (strides 4, 8, 16, 32) instead of logits.
    norm_layer, norm_kwargs
        The normalisation layer and its keyword arguments.

    Inputs: float (N, 3, H, W), normalised. Outputs: logits, float (N, num_classes).

    Raises
    ------
    UserError
        Another depth, or an impossible option.
    """

    def __init__(
        self,
        depth,
        fusion="add",
        num_classes=1000,
        reduction=None,
        first_fused_stage=3,
        deep_stem=True,
        avg_down=True,
        last_gamma=True,
        use_se=False,
        features_only=False,
        norm_layer=nn.BatchNorm,
        norm_kwargs=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if depth not in BLOCKS:
            raise UserError(f"no ResNeXt has depth {depth}: it is one of {sorted(BLOCKS)}")

        def stem(features, norm):
            channels = 128 if deep_stem else 64
            if deep_stem:
                add_deep_stem(features, 128, 64, norm, stride=2)
            else:
                features.add(nn.Conv2D(64, 7, 2, 3, use_bias=False, in_channels=3))
            features.add(
                norm(in_channels=channels),
                nn.Activation("relu"),
                nn.MaxPool2D(3, strides=2, padding=1),
            )
            return channels

        self._build(
            stem, BLOCKS[depth], (2, 3, 4), fusion, reduction, first_fused_stage,
            num_classes, avg_down, last_gamma, use_se, features_only, norm_layer, norm_kwargs,
        )  # fmt: skip
