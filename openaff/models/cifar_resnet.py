"""CIFAR ResNet with a fusion in every block: pre-activation, depth 6b + 2.

Identity Mappings in Deep Residual Networks (He et al., ECCV 2016), https://arxiv.org/abs/1603.05027;
with fusion: Attentional Feature Fusion (Dai et al., WACV 2021), section 4.
"""

from dataclasses import dataclass

from mxnet.gluon import nn

from ..attention import GlobalPool
from ..blocks import PreActBlock, add_deep_stem, conv3x3, input_norm
from ..utils.errors import UserError
from .factory import register_backbone
from .stages import Options, StagedNet, scaled

# Depths that list_models shows; the formula takes any 6b + 2.
DEPTHS = (8, 14, 20, 26, 32, 44, 56, 110)


@dataclass(frozen=True)
class CIFARResNetOptions(Options):
    """See :class:`~openaff.models.stages.Options`.

    With ``features_only`` the outputs are those before any final norm and ReLU.

    Parameters
    ----------
    width_multiplier : float
        m; the published networks have 4. Channels are rounded: 1.07 gives 17, 34 and 68.
    """

    num_classes: int = 100
    width_multiplier: float = 4


@register_backbone(
    r"cifar_resnet([1-9]\d{0,3})",
    [f"cifar_resnet{depth}" for depth in DEPTHS],
    input_shape=(3, 32, 32),
    strides=(1, 2, 4),
    widths=(64, 128, 256),
)
class CIFARResNet(StagedNet):
    """Three stages of b pre-activation blocks with 16m, 32m and 64m channels.

    Parameters
    ----------
    depth : int
        6b + 2, for b blocks per stage.
    options
        See :class:`CIFARResNetOptions`. The deep stem has 8m, 8m and 16m channels.

    Raises
    ------
    UserError
        A depth that is not 6b + 2, or an impossible option.
    """

    Options = CIFARResNetOptions
    fusion_defaults = {"reduction": 4}

    title = "CIFAR ResNet"

    def __init__(self, depth, prefix=None, params=None, **options):
        super().__init__(3, options, prefix, params)
        if depth < 8 or (depth - 2) % 6:
            raise UserError(
                f"no {self.title} has depth {depth}: it must be 6b + 2 (8, 14, 20, ...)"
            )
        options, norm = self.options, self.options.norm
        widths = [scaled(width, options.width_multiplier) for width in (16, 32, 64)]
        with self.name_scope():
            self.features = nn.HybridSequential(prefix="")
            self.features.add(input_norm(norm, 3))
            conv = self.conv_of(1)
            if options.deep_stem:
                add_deep_stem(self.features, widths[0], widths[0] // 2, norm, conv=conv)
            else:
                self.features.add(conv(widths[0], 3))
            self.add_stages(((depth - 2) // 6,) * 3, widths, (1, 2, 2), widths[0], stride=1)
            self.add_head(
                norm(in_channels=widths[-1]),
                nn.Activation("relu"),
                GlobalPool(),
                nn.Flatten(),
            )

    def conv_of(self, stage):
        """What makes a stage's 3x3 convolutions, ``f(channels, in_channels, stride)``.

        The stem's are the first stage's.
        """
        return conv3x3

    def make_block(self, stage, first, in_channels, channels, stride, **more):
        more.setdefault("fusion", self._fusion_of(stage))
        return PreActBlock(
            channels,
            in_channels,
            stride,
            norm=self.options.norm,
            avg_down=self.options.avg_down,
            last_gamma=self.options.last_gamma,
            conv=self.conv_of(stage),
            **more,
        )
