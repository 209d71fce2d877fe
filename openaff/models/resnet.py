"""ImageNet ResNet v1b/v1d (stride on the 3x3 convolution) with a fusion in its blocks.

Deep Residual Learning (He et al., CVPR 2016), https://arxiv.org/abs/1512.03385, with the stem and
the shortcut of Bag of Tricks (He et al., CVPR 2019), https://arxiv.org/abs/1812.01187;
with fusion: Attentional Feature Fusion (Dai et al., WACV 2021), section 4.
"""

from mxnet.gluon import nn

from ..blocks import Bottleneck, add_deep_stem, shortcut
from ..utils.errors import UserError
from .factory import register_backbone
from .stages import make_stage, norm_and_fusion

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@register_backbone(r"resnet([1-9]\d{0,3})", examples=[f"resnet{depth}" for depth in BLOCKS])
class ResNet(nn.HybridBlock):
    """Four stages of bottlenecks with 64, 128, 256 and 512 planes.

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
        Three 3x3 convolutions (32, 32, 64; the first strided), as published in 2020-11; false: one
        7x7 of 64, as in 2020-09.
    avg_down : bool
        Average pooling before the shortcut's 1x1 convolution, as published in 2020-11; false: a
        strided convolution, as in 2020-09.
    last_gamma : bool
        Start every block's branch at 0 (gamma of its last batch norm).
    use_se : bool
        Squeeze-and-excitation on every branch.
    dilated : bool
        No stride in the last two stages, dilation 2 and 4 instead: an output stride of 8, for
        segmentation.
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
        last_gamma=False,
        use_se=False,
        dilated=False,
        features_only=False,
        norm_layer=nn.BatchNorm,
        norm_kwargs=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if depth not in BLOCKS:
            raise UserError(f"no ResNet has depth {depth}: it is one of {sorted(BLOCKS)}")
        norm, stage_fusion = norm_and_fusion(
            fusion, reduction, 16, first_fused_stage, 4, norm_layer, norm_kwargs
        )
        strides = (1, 2, 1, 1) if dilated else (1, 2, 2, 2)
        dilations = (1, 1, 2, 4) if dilated else (1, 1, 1, 1)
        with self.name_scope():
            if deep_stem:
                self.conv1 = nn.HybridSequential(prefix="conv1_")
                with self.conv1.name_scope():
                    add_deep_stem(self.conv1, 64, 32, norm, stride=2)
            else:
                self.conv1 = nn.Conv2D(64, 7, 2, 3, use_bias=False, in_channels=3)
            self.bn1 = norm(in_channels=64)
            self.maxpool = nn.MaxPool2D(3, strides=2, padding=1)
            in_channels = 64
            for number, blocks in enumerate(BLOCKS[depth], start=1):
                planes, stride = 32 * 2**number, strides[number - 1]
                dilation = dilations[number - 1]

                def make_block(
                    index, number=number, planes=planes, stride=stride, dilation=dilation,
                    before=in_channels,
                ):  # fmt: skip
                    if index > 0:
                        before, stride, downsample = 4 * planes, 1, None
                    else:
                        # The first block still sees the map of the stage before.
                        dilation = dilations[max(number - 2, 0)]
                        downsample = shortcut(4 * planes, before, stride, avg_down, norm)
                    return Bottleneck(
                        planes,
                        before,
                        stride,
                        downsample,
                        stage_fusion(number),
                        norm=norm,
                        dilation=dilation,
                        last_gamma=last_gamma,
                        use_se=use_se,
                    )

                setattr(self, f"layer{number}", make_stage(f"layer{number}_", blocks, make_block))
                in_channels = 4 * planes
            self.fc = None
            if not features_only:
                self.avgpool = nn.GlobalAvgPool2D()
                self.fc = nn.Dense(num_classes, in_units=in_channels)

    def hybrid_forward(self, F, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        outputs = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            outputs.append(x)
        if self.fc is None:
            return outputs
        return self.fc(F.flatten(self.avgpool(x)))
