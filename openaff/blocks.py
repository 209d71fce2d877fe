"""Residual blocks with one slot, ``attention``, for the fusion of branch and skip connection."""

from mxnet.gluon import nn


def shortcut(channels, in_channels, stride, avg_down=True):
    """The skip connection where the shape changes: average pooling, then a 1x1 convolution.

    Parameters
    ----------
    channels, in_channels : int
        Output and input channels.
    stride : int
        Stride of the pooling, or of the convolution where ``avg_down`` is false.
    avg_down : bool
        False: the strided 1x1 convolution of the 2020-09 networks.

    Returns
    -------
    nn.HybridSequential
        (N, in_channels, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride)).
    """
    body = nn.HybridSequential()
    with body.name_scope():
        if avg_down:
            # ONNX knows ceil mode only with the padding left out of the mean.
            body.add(nn.AvgPool2D(stride, strides=stride, ceil_mode=True, count_include_pad=False))
        body.add(
            nn.Conv2D(
                channels,
                kernel_size=1,
                strides=1 if avg_down else stride,
                use_bias=False,
                in_channels=in_channels,
            )
        )
    return body


class PreActBlock(nn.HybridBlock):
    """Pre-activation basic block (He et al., ECCV 2016) whose sum is a fusion.

    (N, in_channels, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride)).

    Parameters
    ----------
    channels, in_channels : int
        Output and input channels.
    stride : int
        Stride of the first 3x3 convolution and of the shortcut.
    fusion : callable
        ``f(channels) -> HybridBlock``, called once.
    avg_down : bool
        See :func:`shortcut`.
    norm : callable
        ``norm(in_channels=C) -> HybridBlock``, the normalisation.
    """

    def __init__(
        self, channels, in_channels, stride, fusion, avg_down=True, norm=nn.BatchNorm, **kwargs
    ):
        super().__init__(**kwargs)
        with self.name_scope():
            self.resfwd = nn.HybridSequential(prefix="resfwd_")
            with self.resfwd.name_scope():
                self.resfwd.add(
                    norm(in_channels=in_channels),
                    nn.Activation("relu"),
                    conv3x3(channels, in_channels, stride),
                    norm(in_channels=channels),
                    nn.Activation("relu"),
                    conv3x3(channels, channels),
                )
            self.downsample = None
            if stride != 1 or channels != in_channels:
                self.downsample = shortcut(channels, in_channels, stride, avg_down)
            self.attention = fusion(channels)

    def hybrid_forward(self, F, x):
        residual = x if self.downsample is None else self.downsample(x)
        return self.attention(self.resfwd(x), residual)


def conv3x3(channels, in_channels, stride=1, groups=1):
    """A 3x3 convolution, padded by 1, without bias."""
    return nn.Conv2D(
        channels,
        kernel_size=3,
        strides=stride,
        padding=1,
        groups=groups,
        use_bias=False,
        in_channels=in_channels,
    )
