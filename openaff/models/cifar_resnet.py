"""CIFAR ResNet with a fusion in every block: pre-activation, depth 6b + 2.

Identity Mappings in Deep Residual Networks (He et al., ECCV 2016), https://arxiv.org/abs/1603.05027;
with fusion: Attentional Feature Fusion (Dai et al., WACV 2021), section 4.
"""

from mxnet.gluon import nn

from ..blocks import PreActBlock, add_deep_stem, conv3x3, input_norm
from ..utils.errors import UserError, positive_int
from .factory import register_backbone
from .stages import StagedNet, make_stage, norm_and_fusion

# Depths that list_models shows; the formula takes any 6b + 2.
DEPTHS = (8, 14, 20, 26, 32, 44, 56, 110)


@register_backbone(
    r"cifar_resnet([1-9]\d{0,3})", examples=[f"cifar_resnet{depth}" for depth in DEPTHS]
)
class CIFARResNet(StagedNet):
    """Three stages of b pre-activation blocks with 16m, 32m and 64m channels.

    Parameters
    ----------
    depth : int
        6b + 2, for b blocks a stage.
    fusion : str or callable
        See :func:`~openaff.fusion.fusion_factory`.
    num_classes : int
        Outputs.
    reduction : int, optional
        Reduction r of the fusion, by default 4.
    width_multiplier : int
        m; the published networks have 4.
    first_fused_stage : int
        1 to 4: stages before it use the plain sum (4: all of them).
    deep_stem : bool
        Three 3x3 convolutions (8m, 8m, 16m) with batch norm and ReLU between, instead of one.
    avg_down : bool
        Average pooling before the shortcut's 1x1 convolution; false: a strided convolution, as
        the 2020-09 networks have.
    last_gamma : bool
        Start every block's branch at 0 (gamma of its last batch norm).
    features_only : bool
        Give the list of stage outputs instead of logits; before any final norm and ReLU.
    norm_layer, norm_kwargs
        The normalisation layer and its keyword arguments.

    Inputs: float (N, 3, H, W), normalised. Outputs: logits, float (N, num_classes).

    Raises
    ------
    UserError
        A depth that is not 6b + 2, or an impossible option.
    """

    def __init__(
        self,
        depth,
        fusion="add",
        num_classes=100,
        reduction=None,
        width_multiplier=4,
        first_fused_stage=1,
        deep_stem=False,
        avg_down=True,
        last_gamma=False,
        features_only=False,
        norm_layer=nn.BatchNorm,
        norm_kwargs=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if depth < 8 or (depth - 2) % 6:
            raise UserError(
                f"no CIFAR ResNet has depth {depth}: it must be 6b + 2 (8, 14, 20, ...)"
            )
        blocks = (depth - 2) // 6
        positive_int("width_multiplier", width_multiplier)
        widths = [width * width_multiplier for width in (16, 32, 64)]
        norm, stage_fusion = norm_and_fusion(
            fusion, reduction, 4, first_fused_stage, len(widths), norm_layer, norm_kwargs
        )
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            self.features.add(input_norm(3, norm_layer, norm_kwargs))
            if deep_stem:
                add_deep_stem(self.features, widths[0], widths[0] // 2, norm)
            else:
                self.features.add(conv3x3(widths[0], 3))
            in_channels = widths[0]
            for number, channels in enumerate(widths, start=1):

                def make_block(index, number=number, channels=channels, before=in_channels):
                    first = index == 0
                    return PreActBlock(
                        channels,
                        before if first else channels,
                        stride=2 if first and number > 1 else 1,
                        fusion=stage_fusion(number),
                        norm=norm,
                        avg_down=avg_down,
                        last_gamma=last_gamma,
                    )

                self.features.add(make_stage(f"stage{number}_", blocks, make_block))
                in_channels = channels
            head = [
                norm(in_channels=in_channels),
                nn.Activation("relu"),
                nn.GlobalAvgPool2D(),
                nn.Flatten(),
            ]
            self._finish(len(widths), head, num_classes, in_channels, features_only)
