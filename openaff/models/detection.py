"""Detectors of gluoncv on the maps of our networks: SSD and CenterNet.

The detectors' classes are gluoncv's own, so are their losses, targets and metrics.

SSD: Single Shot MultiBox Detector (Liu et al., ECCV 2016), https://arxiv.org/abs/1512.02325;
Objects as Points (Zhou et al., 2019), https://arxiv.org/abs/1904.07850.
"""

from collections import OrderedDict

import numpy as np
from mxnet.gluon import nn

from ..utils.errors import UserError, positive_int
from ..utils.imports import import_gluoncv
from ..utils.packaged import pip_install
from .fpn import FPN

RATIOS = (1, 2, 0.5, 3, 1 / 3)  # width / height of SSD's boxes
SMALLEST, LARGEST = 0.1, 0.95  # sizes of SSD's boxes, as shares of the image's


def ssd(levels, classes, size, **options):
    """gluoncv's SSD, whose feature maps are those of a network of ours.

    Each map predicts boxes of its own size: the sizes grow by one factor from map to map, from 0.1
    to 0.95 of the image's.

    Parameters
    ----------
    levels : mxnet.gluon.HybridBlock
        A network built with ``features_only=True``, such as
        ``create_model("aff_fpn_resnet8", features_only=True)``.
    classes : sequence of str
        Names of the classes, without the background.
    size : int
        Height and width of the images that it is made for, in pixels.  It takes others, too.
    options
        Further ones of ``gluoncv.model_zoo.SSD``; ``sizes`` and ``ratios`` among them replace ours.

    Returns
    -------
    gluoncv.model_zoo.SSD
        Its child ``features`` is ``levels``.

    Raises
    ------
    UserError
        gluoncv is missing, or a network that gives no maps.
    """
    info = _feature_info(levels)
    positive_int("size", size)
    sizes = np.geomspace(SMALLEST * size, LARGEST * size, len(info) + 1)
    defaults = {
        "sizes": sizes.tolist(),
        "ratios": [RATIOS] * len(info),
        "anchor_alloc_size": max(128, -(-size // info[0].stride)),
    }
    return _gluoncv().SSD(
        None,
        size,
        lambda **_: levels,
        None,
        steps=[each.stride for each in info],
        classes=list(classes),
        **{**defaults, **options},
    )


def center_net(levels, classes, head_channels=64, **options):
    """gluoncv's CenterNet on the largest map of a feature pyramid of ours.

    Parameters
    ----------
    levels : FPN
        A pyramid built with ``features_only=True``, such as
        ``create_model("aff_fpn_resnet8", features_only=True)``.
    classes : sequence of str
        Names of the classes.
    head_channels : int
        Of the 3x3 convolution that each head begins with; 0: none.
    options
        Further ones of ``gluoncv.model_zoo.CenterNet``, such as ``topk``.

    Returns
    -------
    gluoncv.model_zoo.CenterNet
        Its child ``base_network.levels`` is ``levels``; its ``scale`` is that of the map.

    Raises
    ------
    UserError
        gluoncv is missing, or a network that is no pyramid, or gives no maps.
    """
    info = _feature_info(levels)
    if not isinstance(levels, FPN):
        raise UserError(
            f"CenterNet sees the largest map alone, which {type(levels).__name__} makes in its "
            "first stage: take a feature pyramid, such as aff_fpn_resnet8"
        )
    heads = OrderedDict(
        heatmap={"num_output": len(classes), "bias": -2.19},  # sigmoid(-2.19) = 0.1
        wh={"num_output": 2},
        reg={"num_output": 2},
    )
    return _gluoncv().CenterNet(
        LargestMap(levels),
        heads,
        list(classes),
        head_conv_channel=head_channels,
        scale=float(info[0].stride),
        **options,
    )


class LargestMap(nn.HybridBlock):
    """The first map of a ``features_only`` network: (N, 3, H, W) -> (N, C, H / s, W / s)."""

    def __init__(self, levels, **kwargs):
        super().__init__(**kwargs)
        self.levels = levels

    def hybrid_forward(self, F, x):
        return self.levels(x)[0]


def _feature_info(levels):
    if not getattr(getattr(levels, "options", None), "features_only", False):
        raise UserError(
            f"{type(levels).__name__} gives no feature maps: build a network of openaff with "
            "features_only=True"
        )
    return levels.feature_info


def _gluoncv():
    try:
        return import_gluoncv("gluoncv.model_zoo")
    except ImportError as error:
        raise UserError(f"detectors need gluoncv ({error}): {pip_install('gluoncv')}") from None
