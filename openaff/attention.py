"""Channel contexts and MS-CAM, the multi-scale channel attention module.

Attentional Feature Fusion (Dai et al., WACV 2021), https://arxiv.org/abs/2009.14082
"""

from mxnet.gluon import nn

from .errors import UserError, positive_int


class GlobalPool(nn.HybridBlock):
    """Mean over height and width: (N, C, H, W) -> (N, C, 1, 1).

    The same values as ``nn.GlobalAvgPool2D``, whose backward pass takes most of a training step
    on a CPU; this operator's does not.
    """

    def hybrid_forward(self, F, x):
        return F.contrib.AdaptiveAvgPooling2D(x, output_size=1)


def hidden_channels(channels, reduction):
    """``channels // reduction``, or a :class:`UserError` where the bottleneck cannot be built."""
    positive_int("channels", channels)
    positive_int("reduction", reduction)
    if channels < reduction or channels % reduction:
        raise UserError(
            f"{channels} channels cannot be reduced by {reduction}: take a reduction that "
            "divides them"
        )
    return channels // reduction


def channel_context(
    channels,
    reduction=None,
    pool=False,
    out_channels=None,
    sigmoid=False,
    norm_layer=nn.BatchNorm,
    norm_kwargs=None,
):
    """A channel context, section 3.1: point-wise convolutions, on the map or on its mean.

    Parameters
    ----------
    channels : int
        Channels C of the input.
    reduction : int, optional
        ``None``: one 1x1 convolution and batch norm (L1, G1).  r: the bottleneck of equations
        1 and 2, C -> C // r -> C with a ReLU between (L2, G2).
    pool : bool
        True pools first: the global context, (N, C, 1, 1).  False: the local one, (N, C, H, W).
    out_channels : int, optional
        Output channels, by default C.
    sigmoid : bool
        End with a sigmoid.
    norm_layer, norm_kwargs
        The normalisation layer and its keyword arguments.

    Returns
    -------
    nn.HybridSequential
        Its child indices are the published checkpoints' keys.

    Raises
    ------
    UserError
        C is less than r, or not a multiple of it.
    """
    out_channels = out_channels or channels
    norm_kwargs = norm_kwargs or {}
    body = nn.HybridSequential()
    with body.name_scope():
        if pool:
            body.add(GlobalPool())
        if reduction is not None:
            hidden = hidden_channels(channels, reduction)
            body.add(
                nn.Conv2D(hidden, kernel_size=1, in_channels=channels),
                norm_layer(in_channels=hidden, **norm_kwargs),
                nn.Activation("relu"),
            )
            channels = hidden
        body.add(
            nn.Conv2D(out_channels, kernel_size=1, in_channels=channels),
            norm_layer(in_channels=out_channels, **norm_kwargs),
        )
        if sigmoid:
            body.add(nn.Activation("sigmoid"))
    return body


class MSCAM(nn.HybridBlock):
    """Multi-scale channel attention, equation 3: ``x * sigmoid(L(x) + G(x))``.

    Parameters
    ----------
    channels : int
        Channels C of the input.
    reduction : int
        Reduction r of both contexts' bottlenecks; must divide C.
    norm_layer, norm_kwargs
        The normalisation layer and its keyword arguments.

    Inputs and outputs are float maps of one shape (N, C, H, W).
    """

    def __init__(
        self, channels=64, reduction=4, norm_layer=nn.BatchNorm, norm_kwargs=None, **kwargs
    ):
        super().__init__(**kwargs)
        norm = {"norm_layer": norm_layer, "norm_kwargs": norm_kwargs}
        with self.name_scope():
            self.local_att = channel_context(channels, reduction, **norm)
            self.global_att = channel_context(channels, reduction, pool=True, **norm)

    def hybrid_forward(self, F, x):
        weight = F.sigmoid(F.broadcast_add(self.local_att(x), self.global_att(x)))
        return F.broadcast_mul(x, weight)
