"""CIFAR Inception-ResNet: a fusion in every 3x3 convolution, and a plain sum in every block.

The "same layer" scenario of Attentional Feature Fusion (Dai et al., WACV 2021),
https://arxiv.org/abs/2009.14082
"""

from dataclasses import dataclass
from functools import partial

from ..blocks import SAME_LAYER, InceptionCell
from ..fusion import DirectAddFuse
from .cifar_resnet import CIFARResNet, CIFARResNetOptions
from .factory import register_backbone

# Depths that list_models shows; the formula takes any 6b + 2.
DEPTHS = (8, 14, 20, 26)


@dataclass(frozen=True)
class InceptionResNetOptions(CIFARResNetOptions):
    """See :class:`~openaff.models.stages.Options`; a strided shortcut, as the authors' code has."""

    avg_down: bool = False


@register_backbone(
    r"cifar_inception_resnet([1-9]\d{0,3})",
    [f"cifar_inception_resnet{depth}" for depth in DEPTHS],
    input_shape=(3, 32, 32),
    strides=(1, 2, 4),
    widths=(64, 128, 256),
)
class InceptionResNet(CIFARResNet):
    """The CIFAR ResNet with an :class:`~openaff.blocks.InceptionCell` for every 3x3 convolution.

    Without a ``reduction`` every context is one 1x1 convolution, as in the authors' code; r makes
    it a bottleneck, as the text has it (2, iAFF 4).  ``doubled`` is false unless it is set.  The
    stem's cell is fused where the first stage is.

    A block's first cell has the channels of its stage's *input*, in a stage's later blocks too, as
    in the authors' code; its second cell has the stage's own.

    Parameters
    ----------
    depth : int
        6b + 2, for b blocks per stage.
    options
        See :class:`InceptionResNetOptions`. The deep stem has 8m, 8m and 16m channels.

    Raises
    ------
    UserError
        A depth that is not 6b + 2, or an impossible option.
    """

    Options = InceptionResNetOptions
    fusion_defaults = SAME_LAYER
    title = "CIFAR Inception-ResNet"

    def conv_of(self, stage):
        return partial(InceptionCell, fusion=self._fusion_of(stage), norm=self.options.norm)

    def make_block(self, stage, first, in_channels, channels, stride):
        if first:
            self._stage_input = in_channels
        return super().make_block(
            stage,
            first,
            in_channels,
            channels,
            stride,
            fusion=DirectAddFuse,
            hidden=self._stage_input,
        )
