"""CIFAR ResNet with a fusion in every block: pre-activation, depth 6b + 2.

Identity Mappings in Deep Residual Networks (He et al., ECCV 2016), https://arxiv.org/abs/1603.05027;
with fusion: Attentional Feature Fusion (Dai et al., WACV 2021), section 4.
"""

from functools import partial

from mxnet.gluon import nn

from ..blocks import PreActBlock, conv3x3
from ..errors import UserError, positive_int
from ..fusion import fusion_by_stage, fusion_factory
from .factory import register_backbone

# Depths that list_models shows; the formula takes any 6b + 2.
DEPTHS = (8, 14, 20, 26, 32, 44, 56, 110)


@register_backbone(r"cifar_resnet(\d+)", examples=[f"cifar_resnet{depth}" for depth in DEPTHS])
class CIFARResNet(nn.HybridBlock):
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
        fusion = fusion_factory(fusion, reduction, norm_layer=norm_layer, norm_kwargs=norm_kwargs)
        stage_fusion = fusion_by_stage(fusion, first_fused_stage, len(widths))
        norm = partial(norm_layer, **(norm_kwargs or {}))
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            self.features.add(norm(scale=False, center=False, in_channels=3))
            if deep_stem:
                for channels, in_channels in ((widths[0] // 2, 3), (widths[0] // 2,) * 2):
                    self.features.add(
                        conv3x3(channels, in_channels),
                        norm(in_channels=channels),
                        nn.Activation("relu"),
                    )
            self.features.add(conv3x3(widths[0], widths[0] // 2 if deep_stem else 3))
            in_channels = widths[0]
            for number, channels in enumerate(widths, start=1):
                stage = nn.HybridSequential(prefix=f"stage{number}_")
                with stage.name_scope():
                    for index in range(blocks):
                        stage.add(
                            PreActBlock(
                                channels,
                                in_channels,
                                stride=2 if number > 1 and index == 0 else 1,
                                fusion=stage_fusion(number),
                                avg_down=avg_down,
                                norm=norm,
                            )
                        )
                        in_channels = channels
                self.features.add(stage)
            self.features.add(
                norm(in_channels=in_channels),
                nn.Activation("relu"),
                nn.GlobalAvgPool2D(),
                nn.Flatten(),
            )
            self.output = nn.Dense(num_classes, in_units=in_channels)

    def hybrid_forward(self, F, x):
        return self.output(self.features(x))
