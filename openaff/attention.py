"""Channel contexts and MS-CAM, the multi-scale channel attention module.

Attentional Feature Fusion (Dai et al., WACV 2021), https://arxiv.org/abs/2009.14082
"""

import contextlib
import contextvars

import numpy as np

from .utils.errors import UserError, one_line, positive_int
from .utils.framework import import_mxnet

import_mxnet()  # with a one-line explanation where it cannot be

from mxnet.gluon import nn  # noqa: E402


class GlobalPool(nn.HybridBlock):
    """Mean over height and width: (N, C, H, W) -> (N, C, 1, 1).

    The same values as ``nn.GlobalAvgPool2D``, whose backward pass on a CPU is slow and makes that
    of the batch norms before it slow; in a fusion it takes most of a training step.
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


def check_norm(norm_layer, norm_kwargs):
    """Refuse a normalisation layer, or keyword arguments of it, that cannot be built.

    Raises
    ------
    UserError
        It is no class of layers; or the arguments are none of its own, or those that networks set.
    """
    if not callable(norm_layer):
        raise UserError(f"norm_layer must be a class of layers, not {norm_layer!r}")
    try:
        options = dict(norm_kwargs or {})
        for name in ("in_channels", "prefix", "params"):
            if name in options:
                raise ValueError(f"every network sets {name} itself")
        norm_layer(in_channels=1, **options).initialize()
    except Exception as error:  # whatever a layer and its initialisers raise
        raise UserError(f"norm_kwargs={norm_kwargs!r}: {one_line(error)}") from None


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


_plain = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain_graph():
    """While it lasts, networks are traced with ``broadcast_add``, which every converter knows.

    Otherwise contexts are added in a form that trains faster, :meth:`ContextBlock.joint_weight`.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


class ContextBlock(nn.HybridBlock):
    """A block of channel contexts: builds them, and makes the weight of two.

    Parameters
    ----------
    channels : int
        Channels C of the input.
    norm_layer, norm_kwargs
        The normalisation layer and its keyword arguments.
    """

    def __init__(self, channels, norm_layer=nn.BatchNorm, norm_kwargs=None, **kwargs):
        super().__init__(**kwargs)
        self._channels = channels if channels is None else positive_int("channels", channels)
        self._norm = {"norm_layer": norm_layer, "norm_kwargs": norm_kwargs}
        self._half = False

    def context(self, reduction=None, pool=False, **options):
        """A :func:`channel_context` of this block's channels and normalisation."""
        with self.name_scope():
            return channel_context(self._channels, reduction, pool, **self._norm, **options)

    def cast(self, dtype):
        self._half = np.dtype(dtype) == np.float16
        super().cast(dtype)

    def joint_weight(self, F, one, other):
        """``sigmoid(one + other)`` of a local (N, C, H, W) and a global (N, C, 1, 1) context."""
        return sigmoid(F, self.joint_sum(F, one, other))

    def joint_sum(self, F, one, other):
        """``one + other`` of a local (N, C, H, W) and a global (N, C, 1, 1) context.

        A broadcast sum's backward pass adds up the gradient over H and W, which MXNet does slowly
        on a CPU.  As the matrix product of a column of N * C values with a row of H * W ones, both
        directions are one call of the linear algebra library, which has no float16.
        """
        if self._half or _plain.get():
            return F.broadcast_add(one, other)
        rows, column, ones = _as_matrices(F, one, other)
        return F.reshape_like(F.linalg_gemm(column, ones, rows), one)

    def spread(self, F, other, one):
        """A global context, (N, C, 1, 1), at every position of a local one, (N, C, H, W)."""
        if self._half or _plain.get():
            return F.broadcast_like(other, one)
        _, column, ones = _as_matrices(F, one, other)
        return F.reshape_like(F.linalg_gemm2(column, ones), one)


def _as_matrices(F, one, other):
    """(N, C, H, W), (N, C, 1, 1) -> (N * C, H * W), (N * C, 1) and ones of (1, H * W)."""
    rows = F.reshape(one, shape=(-3, -3))
    ones = F.ones_like(F.slice_axis(rows, axis=0, begin=0, end=1))
    return rows, F.reshape(other, shape=(-1, 1)), ones


def sigmoid(F, x):
    """The logistic function; on a CPU this operator is oneDNN's, ten times as fast as F.sigmoid."""
    return F.Activation(x, act_type="sigmoid")


class ConcatConv2D(nn.Conv2D):
    """A 1x1 convolution of two concatenated maps, computed as one convolution of each.

    Its parameters are those of the convolution of the concatenation, which is never made: the sum
    of both outputs is the same, and may be a broadcast one.  On a CPU, MXNet 1.9.1 also fails to go
    back from a convolution to a concatenation of maps whose channels are no multiple of 16.

    Parameters
    ----------
    channels : int
        Output channels.
    in_channels : int
        Channels of each of the maps.

    Inputs are two float maps (N, in_channels, H, W), or one that is concatenated already.  Outputs
    are a map of each, (N, channels, H, W); the bias is in the second.
    """

    def __init__(self, channels, in_channels, **kwargs):
        super().__init__(channels, kernel_size=1, in_channels=2 * in_channels, **kwargs)
        self._each = in_channels

    def hybrid_forward(self, F, one, other=None, weight=None, bias=None):
        if other is None:
            return super().hybrid_forward(F, one, weight, bias)
        first = F.slice_axis(weight, axis=1, begin=0, end=self._each)
        second = F.slice_axis(weight, axis=1, begin=self._each, end=2 * self._each)
        options = {"kernel": (1, 1), "num_filter": self._channels}
        return (
            F.Convolution(one, first, no_bias=True, **options),
            F.Convolution(other, second, bias, **options),
        )


class MSCAM(ContextBlock):
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

    def __init__(self, channels=64, reduction=4, **kwargs):
        super().__init__(channels, **kwargs)
        self.local_att = self.context(reduction)
        self.global_att = self.context(reduction, pool=True)

    def hybrid_forward(self, F, x):
        return x * self.joint_weight(F, self.local_att(x), self.global_att(x))
