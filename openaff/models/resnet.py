"""ImageNet ResNet v1b/v1d (stride on the 3x3 convolution) with a fusion in its blocks.

Deep Residual Learning (He et al., CVPR 2016), https://arxiv.org/abs/1512.03385, with the stem and
the shortcut of Bag of Tricks (He et al., CVPR 2019), https://arxiv.org/abs/1812.01187;
with fusion: Attentional Feature Fusion (Dai et al., WACV 2021), section 4.
"""

from dataclasses import dataclass

from mxnet.gluon import nn

from ..attention import GlobalPool
from ..blocks import BasicBlock, Bottleneck, add_deep_stem
from ..utils.errors import UserError
from .factory import register_backbone
from .stages import PostActNet, PostActOptions

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
BASIC = (18, 34)  # depths of two 3x3 convolutions a block


@dataclass(frozen=True)
class ResNetOptions(PostActOptions):
    """See :class:`~openaff.models.stages.Options`.

    Parameters
    ----------
    dilated : bool
        No stride in the last two stages, dilation 2 and 4 instead: an output stride of 8, for
        segmentation.
    """

    first_fused_stage: int = 3
    deep_stem: bool = True
    dilated: bool = False


@register_backbone(
    r"resnet([1-9]\d{0,3})",
    [f"resnet{depth}" for depth in BLOCKS if depth not in BASIC],
    input_shape=(3, 224, 224),
    strides=(4, 8, 16, 32),
    widths=(256, 512, 1024, 2048),
)
@register_backbone(  # entered before the one above, which fits these names too
    r"resnet(18|34)",
    [f"resnet{depth}" for depth in BASIC],
    input_shape=(3, 224, 224),
    strides=(4, 8, 16, 32),
    widths=(64, 128, 256, 512),
)
class ResNet(PostActNet):
    """Four stages of blocks with 64, 128, 256 and 512 planes.

    Parameters
    ----------
    depth : int
        18 or 34 of basic blocks; 50, 101 or 152 of bottlenecks.
    options
        See :class:`ResNetOptions`. The deep stem, as published in 2020-11, has 32, 32 and 64
        channels, its first convolution is strided; otherwise, as in 2020-09, one 7x7 of 64.

    Raises
    ------
    UserError
        Another depth, or an impossible option.
    """

    Options = ResNetOptions
    stage_prefix = "layer"

    def __init__(self, depth, prefix=None, params=None, **options):
        super().__init__(4, options, prefix, params)
        if depth not in BLOCKS:
            raise UserError(f"no ResNet has depth {depth}: it is one of {sorted(BLOCKS)}")
        options, norm = self.options, self.options.norm
        self._dilations = (1, 1, 2, 4) if options.dilated else (1, 1, 1, 1)
        with self.name_scope():
            if options.deep_stem:
                self.conv1 = nn.HybridSequential(prefix="conv1_")
                with self.conv1.name_scope():
                    add_deep_stem(self.conv1, 64, 32, norm, stride=2)
            else:
                self.conv1 = nn.Conv2D(64, 7, 2, 3, use_bias=False, in_channels=3)
            self.bn1 = norm(in_channels=64)
            self.maxpool = nn.MaxPool2D(3, strides=2, padding=1)
            strides = (1, 2, 1, 1) if options.dilated else (1, 2, 2, 2)
            block = BasicBlock if depth in BASIC else Bottleneck
            self.build_stages(BLOCKS[depth], strides, 64, 4, block)
            self.fc = None
            if options.features_only:
                self.head_names = ("fc.",)
            else:
                self.avgpool = GlobalPool()
                channels = self.feature_info[-1].channels
                self.fc = nn.Dense(options.num_classes, in_units=channels)

    def make_block(self, stage, first, in_channels, channels, stride):
        dilation = self._dilations[stage - 1]
        # The first convolution of a stage still sees the map of the stage before.
        before = self._dilations[max(stage - 2, 0)] if first else dilation
        self._more = {"dilations": (before, dilation)}
        return super().make_block(stage, first, in_channels, channels, stride)

    def add_stage(self, number, stage):
        setattr(self, f"layer{number}", stage)
        return f"layer{number}"

    def hybrid_forward(self, F, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        outputs = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            outputs.append(x)
        if self.fc is None:
            return outputs
        return self.fc(F.flatten(self.avgpool(x)))
