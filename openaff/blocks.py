"""Blocks with one slot, ``attention``, for the fusion of two maps.

In residual blocks these are the branch and the skip connection.  They take their normalisation as
``norm``, a callable ``norm(in_channels=C, **more)``, and their fusion as a callable
``fusion(channels)``, which they call once.  In a pyramid they are two of its levels.
"""

from mxnet import autograd, nd
from mxnet.gluon import Parameter, nn

from .attention import GlobalPool
from .fusion import DirectAddFuse, fusion_factory
from .utils.errors import UserError, positive_int


def conv3x3(channels, in_channels, stride=1, groups=1, dilation=1, use_bias=False):
    """A 3x3 convolution that keeps height and width at stride 1."""
    return nn.Conv2D(
        channels,
        kernel_size=3,
        strides=stride,
        padding=dilation,
        dilation=dilation,
        groups=groups,
        use_bias=use_bias,
        in_channels=in_channels,
    )


def conv1x1(channels, in_channels, stride=1):
    """A 1x1 convolution without bias."""
    return nn.Conv2D(
        channels, kernel_size=1, strides=stride, use_bias=False, in_channels=in_channels
    )


def last_norm(norm, channels, last_gamma):
    """The branch's last normalisation; ``last_gamma`` starts its gamma, and so the branch, at 0."""
    return norm(in_channels=channels, gamma_initializer="zeros" if last_gamma else "ones")


class _Reached(Parameter):
    """A parameter that nothing trains, and that the backward pass reaches all the same.

    ``grad_req`` says "null" to trainers, counts and files.  Setting it to "null" freezes the layer
    (the backward pass then ends before it), "write" ends that, as for other parameters.
    """

    _frozen = False

    @property
    def grad_req(self):
        return "null"

    @grad_req.setter
    def grad_req(self, req):
        self._frozen = req == "null"
        if self._data is not None:
            self._data = [each.detach() for each in self._data]
            self._init_grad()

    def _init_grad(self):
        self._grad = None
        if not self._frozen:
            zeros = [nd.zeros_like(each) for each in self._data]
            autograd.mark_variables(self._data, zeros)

    def cast(self, dtype):
        super().cast(dtype)
        if self._data is not None:
            self._init_grad()


def input_norm(norm, channels):
    """A normalisation of a network's input that has nothing to train.

    On a CPU, MXNet's batch norm updates its running statistics in the backward pass, which ends at
    the last parameter to train: without more, those of a norm on the input stay at 0 and 1.  So
    gamma, which a norm without scale ignores, asks for a gradient; nothing reads it.

    Parameters
    ----------
    norm : callable
        See the module.
    channels : int
        Of the input.
    """
    layer = norm(scale=False, center=False, in_channels=channels)
    gamma = getattr(layer, "gamma", None)
    if type(gamma) is Parameter:
        gamma.__class__ = _Reached  # in place: its name and its order are those of the norm
    return layer


def add_deep_stem(body, channels, hidden, norm, stride=1, conv=conv3x3):
    """Append three 3x3 convolutions (hidden, hidden, channels), norm and ReLU between them.

    ``conv(channels, in_channels, stride)`` makes them.
    """
    positive_int("the deep stem's hidden channels", hidden)
    body.add(
        conv(hidden, 3, stride),
        norm(in_channels=hidden),
        nn.Activation("relu"),
        conv(hidden, hidden),
        norm(in_channels=hidden),
        nn.Activation("relu"),
        conv(channels, hidden),
    )


def shortcut(channels, in_channels, stride, avg_down=True, norm=None):
    """The skip connection where the shape changes: average pooling, then a 1x1 convolution.

    Parameters
    ----------
    channels, in_channels : int
        Output and input channels.
    stride : int
        Stride of the pooling, or of the convolution where ``avg_down`` is false.
    avg_down : bool
        False: the strided 1x1 convolution of the 2020-09 networks.
    norm : callable, optional
        A normalisation after the convolution.

    Returns
    -------
    nn.HybridSequential
        (N, in_channels, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride)).  Where it
        pools, H and W are at least ``stride``.
    """
    body = nn.HybridSequential(prefix="downsample_")
    with body.name_scope():
        if avg_down:
            # ONNX knows ceil mode only with the padding left out of the mean.
            body.add(nn.AvgPool2D(stride, strides=stride, ceil_mode=True, count_include_pad=False))
        body.add(conv1x1(channels, in_channels, 1 if avg_down else stride))
        if norm is not None:
            body.add(norm(in_channels=channels))
    return body


def squeeze_excite(channels, reduction=16):
    """Channel gates (Hu et al., CVPR 2018): (N, C, H, W) -> (N, C, 1, 1) in 0..1."""
    hidden = positive_int(f"the gates' {channels} // {reduction} channels", channels // reduction)
    body = nn.HybridSequential(prefix="se_")
    with body.name_scope():
        body.add(
            GlobalPool(),
            nn.Conv2D(hidden, kernel_size=1, in_channels=channels),
            nn.Activation("relu"),
            nn.Conv2D(channels, kernel_size=1, in_channels=hidden),
            nn.Activation("sigmoid"),
        )
    return body


# Of a fusion's options, in the same-layer scenario.
SAME_LAYER = {"reduction": None, "doubled": False, "normalized": False}


class InceptionCell(nn.HybridBlock):
    """Two 3x3 convolutions side by side, the second dilated, and a fusion of both maps.

    The "same layer" scenario of Attentional Feature Fusion (Dai et al., WACV 2021):
    X = norm(3x3 convolution), Y = norm(3x3 convolution of dilation 2, a receptive field of 5x5),
    and the output is ``fuse(Y, X)``.  Both convolutions have a bias.  For the plain sum they have
    no norm, as in the authors' baseline.

    (N, in_channels, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride)).

    Parameters
    ----------
    channels, in_channels : int
        Output and input channels.
    stride : int
        Of both convolutions.
    fusion : str or callable
        See :func:`~openaff.fusion.fusion_factory`.  Names and classes get this scenario's form: one
        1x1 convolution per context, no factor 2, no batch norm in the concatenation.
    reduction : int, optional
        r: bottlenecks instead of one 1x1 convolution per context.
    doubled : bool, optional
        True: the fusion's weighted sum has its factor 2.
    norm : callable
        See the module.

    Raises
    ------
    UserError
        An unknown fusion, or an option that could have no effect on it.
    """

    def __init__(
        self,
        channels,
        in_channels,
        stride=1,
        fusion="aff",
        reduction=None,
        doubled=None,
        norm=nn.BatchNorm,
        **kwargs,
    ):
        super().__init__(**kwargs)
        build = fusion_factory(fusion, reduction, doubled, SAME_LAYER, norm_layer=norm)
        with self.name_scope():
            fuse = build(channels)
            normalized = not isinstance(fuse, DirectAddFuse)
            for dilation in (1, 2):
                branch = nn.HybridSequential(prefix=f"branch{dilation}_")
                with branch.name_scope():
                    branch.add(
                        conv3x3(channels, in_channels, stride, dilation=dilation, use_bias=True)
                    )
                    if normalized:
                        branch.add(norm(in_channels=channels))
                setattr(self, f"branch{dilation}", branch)
            self.attention = fuse

    def hybrid_forward(self, F, x):
        return self.attention(self.branch2(x), self.branch1(x))


class PreActBlock(nn.HybridBlock):
    """Pre-activation basic block (He et al., ECCV 2016) whose sum is a fusion.

    (N, in_channels, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride)).

    Parameters
    ----------
    channels, in_channels : int
        Output and input channels.
    stride : int
        Stride of the first 3x3 convolution and of the shortcut.
    fusion, norm : callable
        See the module.
    avg_down : bool
        See :func:`shortcut`.
    last_gamma : bool
        Start the branch at 0: its last batch norm, and so its last convolution, gives 0.
    conv : callable
        ``conv(channels, in_channels, stride)`` makes both convolutions.
    hidden : int, optional
        Channels between them, by default ``channels``.
    """

    def __init__(
        self,
        channels,
        in_channels,
        stride,
        fusion,
        norm=nn.BatchNorm,
        avg_down=True,
        last_gamma=False,
        conv=conv3x3,
        hidden=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        hidden = hidden or channels
        with self.name_scope():
            self.resfwd = nn.HybridSequential(prefix="resfwd_")
            with self.resfwd.name_scope():
                self.resfwd.add(
                    norm(in_channels=in_channels),
                    nn.Activation("relu"),
                    conv(hidden, in_channels, stride),
                    last_norm(norm, hidden, last_gamma),
                    nn.Activation("relu"),
                    conv(channels, hidden),
                )
            self.downsample = None
            if stride != 1 or channels != in_channels:
                self.downsample = shortcut(channels, in_channels, stride, avg_down)
            self.attention = fusion(channels)

    def hybrid_forward(self, F, x):
        residual = x if self.downsample is None else self.downsample(x)
        return self.attention(self.resfwd(x), residual)


class _PostActBlock(nn.HybridBlock):
    """A residual block whose sum is a fusion, with a ReLU at the end.

    (N, in_channels, H, W) -> (N, expansion * planes, ceil(H / stride), ceil(W / stride)).

    Parameters
    ----------
    planes : int
        Base channels.
    in_channels : int
        Input channels.
    stride : int
        Of a 3x3 convolution; the shortcut has it too.
    downsample : HybridBlock or None
        The shortcut.
    fusion, norm : callable
        See the module.
    last_gamma : bool
        Start the branch at 0.
    use_se : bool
        Squeeze-and-excitation on the branch.
    """

    expansion = 4

    def __init__(
        self,
        planes,
        in_channels,
        stride,
        downsample,
        fusion,
        norm=nn.BatchNorm,
        last_gamma=False,
        use_se=False,
        prefix=None,
        params=None,
        **branch,
    ):
        super().__init__(prefix=prefix, params=params)
        channels = self.expansion * planes
        with self.name_scope():
            self._add_branch(planes, in_channels, stride, norm, last_gamma, **branch)
            self.se = squeeze_excite(channels) if use_se else None
            self.downsample = downsample
            self.attention = fusion(channels)

    def hybrid_forward(self, F, x):
        residual = x if self.downsample is None else self.downsample(x)
        branch = self._branch(F, x)
        if self.se is not None:
            branch = F.broadcast_mul(branch, self.se(branch))
        return F.relu(self.attention(branch, residual))


class BasicBlock(_PostActBlock):
    """ResNet v1b basic block: two 3x3 convolutions, the first strided.

    Parameters
    ----------
    dilations : pair of int
        Of the two convolutions.
    """

    expansion = 1

    def _add_branch(self, planes, in_channels, stride, norm, last_gamma, dilations=(1, 1)):
        self.conv1 = conv3x3(planes, in_channels, stride, dilation=dilations[0])
        self.bn1 = norm(in_channels=planes)
        self.conv2 = conv3x3(planes, planes, dilation=dilations[1])
        self.bn2 = last_norm(norm, planes, last_gamma)

    def _branch(self, F, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(_PostActBlock):
    """ResNet v1b bottleneck (stride on the 3x3 convolution).

    Parameters
    ----------
    dilations : pair of int
        The first is the 3x3 convolution's.
    """

    def _add_branch(self, planes, in_channels, stride, norm, last_gamma, dilations=(1, 1)):
        channels = self.expansion * planes
        self.conv1 = conv1x1(planes, in_channels)
        self.bn1 = norm(in_channels=planes)
        self.conv2 = conv3x3(planes, planes, stride, dilation=dilations[0])
        self.bn2 = norm(in_channels=planes)
        self.conv3 = conv1x1(channels, planes)
        self.bn3 = last_norm(norm, channels, last_gamma)

    def _branch(self, F, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class ResNeXtBlock(_PostActBlock):
    """ResNeXt bottleneck (Xie et al., CVPR 2017), the 3x3 convolution strided and in groups.

    Parameters
    ----------
    groups : int
        Of the 3x3 convolution.
    group_width : int
        Channels a group where there are 64 planes, in proportion elsewhere.
    """

    def _add_branch(self, planes, in_channels, stride, norm, last_gamma, groups=32, group_width=4):
        width = groups * (planes * group_width // 64)
        channels = self.expansion * planes
        self.body = nn.HybridSequential(prefix="body_")
        with self.body.name_scope():
            self.body.add(
                conv1x1(width, in_channels),
                norm(in_channels=width),
                nn.Activation("relu"),
                conv3x3(width, width, stride, groups=groups),
                norm(in_channels=width),
                nn.Activation("relu"),
                conv1x1(channels, width),
                last_norm(norm, channels, last_gamma),
            )

    def _branch(self, F, x):
        return self.body(x)


def resize_like(F, x, like):
    """``x`` (N, C, h, w), interpolated bilinearly to the height and width of ``like``.

    The outer borders of both maps coincide.  With ``align_corners``, MXNet's default, the corner
    pixels do: the values then depend on the image's size, and float32 positions are less exact.
    Along a side of ``like`` that has one pixel the first one of ``x`` is taken.
    """
    return F.contrib.BilinearResize2D(x, like, mode="like", align_corners=False)


class PyramidFusion(nn.HybridBlock):
    """A step down a feature pyramid, whose sum is a fusion: the long skip connection.

    Feature Pyramid Networks (Lin et al., CVPR 2017), https://arxiv.org/abs/1612.03144; with fusion:
    Attentional Feature Fusion (Dai et al., WACV 2021), section 4.

    y = ReLU(batch norm(1x1 convolution of ``high``, resized to the height and width of ``low``));
    ReLU(batch norm(3x3 convolution of fuse(y, low))).

    Parameters
    ----------
    fusion : str or callable
        See :func:`~openaff.fusion.fusion_factory`. Its ``x`` is y, its ``residual`` is ``low``.
    channels, high_channels : int
        Channels C of the low-level map and of the output, and those of the high-level map.
    reduction : int, optional
        Reduction r of the fusion, by default 4.
    doubled : bool, optional
        False: the fusion's weighted sum is without its factor 2.
    norm_layer, norm_kwargs
        The normalisation layer and its keyword arguments, also of the fusion.

    Inputs: ``low``, float (N, C, H, W), the larger map; ``high``, float (N, high_channels, h, w),
    of any other height and width. Output: float (N, C, H, W).

    Raises
    ------
    UserError
        When built: what the fusion refuses. When called on arrays: one map only, or maps of other
        channels or of different batch sizes.

    Examples
    --------
    >>> import mxnet as mx
    >>> import openaff
    >>> fuse = openaff.PyramidFusion("aff", 64, 128)
    >>> fuse.initialize()
    >>> fuse(mx.nd.ones((2, 64, 45, 60)), mx.nd.ones((2, 128, 23, 30))).shape
    (2, 64, 45, 60)
    """

    def __init__(
        self,
        fusion,
        channels,
        high_channels,
        reduction=None,
        doubled=None,
        norm_layer=nn.BatchNorm,
        norm_kwargs=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self._channels = positive_int("channels", channels)
        self._high_channels = positive_int("high_channels", high_channels)
        norm = {"norm_layer": norm_layer, "norm_kwargs": norm_kwargs}
        build = fusion_factory(fusion, reduction, doubled, **norm)
        with self.name_scope():
            self.high = nn.Conv2D(channels, kernel_size=1, in_channels=high_channels)
            self.high_norm = norm_layer(in_channels=channels, **(norm_kwargs or {}))
            self.attention = build(channels)
            self.post = nn.HybridSequential(prefix="post_")
            with self.post.name_scope():
                self.post.add(
                    nn.Conv2D(channels, kernel_size=3, padding=1, in_channels=channels),
                    norm_layer(in_channels=channels, **(norm_kwargs or {})),
                    nn.Activation("relu"),
                )

    def forward(self, low, high=None):
        if high is None:
            raise UserError("PyramidFusion fuses two feature maps: call it as fuse(low, high)")
        if hasattr(low, "shape") and hasattr(high, "shape"):  # arrays; symbols have no shape yet
            found = [shape[:2] for shape in (low.shape, high.shape) if len(shape) == 4]
            if found != [(low.shape[0], self._channels), (low.shape[0], self._high_channels)]:
                raise UserError(
                    f"PyramidFusion was built for maps of shapes (N, {self._channels}, H, W) and "
                    f"(N, {self._high_channels}, h, w), not {low.shape} and {high.shape}"
                )
        return super().forward(low, high)

    def hybrid_forward(self, F, low, high):
        # Convolved first: a 1x1 convolution and an interpolation, whose weights add up to 1, can
        # change places, and there are fewer pixels, and then fewer channels, to work on.
        high = resize_like(F, self.high(high), low)
        return self.post(self.attention(F.relu(self.high_norm(high)), low))
