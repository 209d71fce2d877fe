"""Networks with attentional feature fusion in PyTorch, in one file.

It needs PyTorch, and safetensors to load weights; copy it wherever you like.

    from network import AFF, IAFF, MSCAM, create, load

    net = load("exports/aff8")        # an export folder, or one .safetensors file
    net = create("aff_cifar_resnet32", num_classes=10)
    fused = AFF(channels=64)(x, residual)

Names of parameters are those of openaff's MXNet networks, with ``weight`` and ``bias`` of a batch
norm for ``gamma`` and ``beta``.

Attentional Feature Fusion (Dai et al., WACV 2021), https://arxiv.org/abs/2009.14082
"""

import inspect
import json
import pathlib
import re
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

# --- Layers ---------------------------------------------------------------------------------------


class BatchNorm(nn.BatchNorm2d):
    """Batch norm as MXNet computes it, settings under MXNet's names.

    It differs from PyTorch's in one thing: the running variance is the mean of the batches' own
    variances (divided by n), where PyTorch corrects each (divided by n - 1).  In a global context
    n is the batch size, and the difference is not small.

    Parameters
    ----------
    channels : int
        Channels C of the input, (N, C, H, W).
    epsilon : float
        Added to the variance.
    momentum : float
        What a step keeps of the running statistics; PyTorch's momentum is 1 minus this.
    scale, center : bool
        False: the weight counts as 1, or the bias stays as it is.  Neither is trained.
    use_global_stats : bool
        Normalise by the running statistics in training, too.
    """

    def __init__(
        self,
        channels,
        epsilon=1e-5,
        momentum=0.9,
        scale=True,
        center=True,
        use_global_stats=False,
    ):
        super().__init__(channels, epsilon, 1 - momentum)
        self.scale, self.use_global_stats = scale, use_global_stats
        self.weight.requires_grad_(scale)
        self.bias.requires_grad_(center)

    def forward(self, x):
        weight = self.weight if self.scale else None
        mean, variance = self.running_mean, self.running_var
        if not self.training or self.use_global_stats:
            return F.batch_norm(x, mean, variance, weight, self.bias, eps=self.eps)
        self.num_batches_tracked.add_(1)
        kept = variance * (1 - self.momentum)
        # Copies: the backward pass refuses buffers that have changed since.
        mean, variance = mean.clone(), variance.clone()
        x = F.batch_norm(x, mean, variance, weight, self.bias, True, self.momentum, self.eps)
        count = x.numel() // x.shape[1]
        self.running_mean.copy_(mean)
        self.running_var.copy_(kept + (variance - kept) * ((count - 1) / count))
        return x


def conv3x3(channels, in_channels, stride=1, groups=1, dilation=1, bias=False):
    """A 3x3 convolution that keeps height and width at stride 1."""
    return nn.Conv2d(in_channels, channels, 3, stride, dilation, dilation, groups, bias)


def conv1x1(channels, in_channels, stride=1):
    """A 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, channels, 1, stride, bias=False)


def last_norm(norm, channels, last_gamma):
    """The branch's last norm; ``last_gamma`` starts its weight, and so the branch, at 0."""
    layer = norm(channels)
    if last_gamma:
        nn.init.zeros_(layer.weight)
    return layer


def deep_stem(channels, hidden, norm, stride=1, conv=conv3x3):
    """The layers of three 3x3 convolutions, with norm and ReLU between them."""
    return [
        conv(hidden, 3, stride),
        norm(hidden),
        nn.ReLU(),
        conv(hidden, hidden),
        norm(hidden),
        nn.ReLU(),
        conv(channels, hidden),
    ]


def shortcut(channels, in_channels, stride, avg_down, norm=None):
    """The skip connection where the shape changes: average pooling, then a 1x1 convolution."""
    pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
    layers = [pool] if avg_down else []
    layers.append(conv1x1(channels, in_channels, 1 if avg_down else stride))
    return nn.Sequential(*layers, *([norm(channels)] if norm else []))


def squeeze_excite(channels, reduction=16):
    """Channel gates (Hu et al., CVPR 2018): (N, C, H, W) -> (N, C, 1, 1) in 0..1."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(channels, channels // reduction, 1),
        nn.ReLU(),
        nn.Conv2d(channels // reduction, channels, 1),
        nn.Sigmoid(),
    )


def resize_like(x, like):
    """``x``, interpolated bilinearly to ``like``'s height and width; outer borders coincide.

    Along a side of ``like`` that has one pixel the first one of ``x`` is taken, as MXNet does.
    """
    height, width = like.shape[2:]
    x = x[:, :, :1] if height == 1 else x
    x = x[..., :1] if width == 1 else x
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


def hidden_channels(channels, reduction):
    """``channels // reduction``, refused where there is a rest."""
    if reduction < 1 or channels % reduction:
        raise ValueError(f"{channels} channels cannot be reduced by {reduction}")
    return channels // reduction


def context(channels, reduction=None, pool=False, out_channels=None, sigmoid=False, norm=BatchNorm):
    """A channel context, section 3.1: 1x1 convolutions on the map, or on its mean.

    Parameters
    ----------
    channels : int
        Channels C of the input, (N, C, H, W).
    reduction : int, optional
        r: the bottleneck C -> C // r -> C with a ReLU between (L2, G2).  None: one 1x1 convolution
        (L1, G1).
    pool : bool
        True: the global context, (N, C, 1, 1).  False: the local one, (N, C, H, W).
    out_channels : int, optional
        Output channels, by default C.
    sigmoid : bool
        End with a sigmoid.
    norm : callable
        ``norm(channels)`` makes a norm.
    """
    out_channels = out_channels or channels
    layers = [nn.AdaptiveAvgPool2d(1)] if pool else []
    if reduction is not None:
        hidden = hidden_channels(channels, reduction)
        layers += [nn.Conv2d(channels, hidden, 1), norm(hidden), nn.ReLU()]
        channels = hidden
    layers += [nn.Conv2d(channels, out_channels, 1), norm(out_channels)]
    return nn.Sequential(*layers, *([nn.Sigmoid()] if sigmoid else []))


class MSCAM(nn.Module):
    """Multi-scale channel attention, equation 3: ``x * sigmoid(L2(x) + G2(x))``.

    Parameters
    ----------
    channels : int
        Channels C of the input and the output, (N, C, H, W).
    reduction : int
        Reduction r of both bottlenecks; must divide C.
    """

    def __init__(self, channels=64, reduction=4, norm=BatchNorm):
        super().__init__()
        self.local_att = context(channels, reduction, norm=norm)
        self.global_att = context(channels, reduction, pool=True, norm=norm)

    def forward(self, x):
        return x * torch.sigmoid(self.local_att(x) + self.global_att(x))


# --- Fusions --------------------------------------------------------------------------------------


class Fusion(nn.Module):
    """Two feature maps of one shape (N, C, H, W) in, one of that shape out.

    ``x`` is the branch's output, ``residual`` the skip connection.  In the equations L and G are
    the local and the global context, 1 with one convolution, 2 a bottleneck; s is the sigmoid.
    """

    def forward(self, x, residual):
        if x.shape != residual.shape:
            shapes = f"{tuple(x.shape)} and {tuple(residual.shape)}"
            raise ValueError(f"{type(self).__name__} needs two maps of one shape, not {shapes}")
        return self.fused(x, residual)


def mean_of(x, residual, weight):
    """``x * weight + residual * (1 - weight)``."""
    return residual + (x - residual) * weight


class DirectAddFuse(Fusion):
    """The plain sum, x + residual."""

    def __init__(self, channels=None, norm=None):
        super().__init__()

    def fused(self, x, residual):
        return x + residual


class ConcatFuse(Fusion):
    """Concatenation, batch norm (unless ``normalized`` is false), 1x1 convolution."""

    def __init__(self, channels=64, normalized=True, norm=BatchNorm):
        super().__init__()
        layers = [norm(2 * channels)] if normalized else []
        self.fuse = nn.Sequential(*layers, nn.Conv2d(2 * channels, channels, 1))

    def fused(self, x, residual):
        return self.fuse(torch.cat([x, residual], dim=1))


class _TwoContexts(Fusion):
    """w = s(local_att(.) + global_att(.))."""

    pooled = (False, True)  # whether local_att and global_att start with the pooling

    def __init__(self, channels=64, reduction=None, norm=BatchNorm):
        super().__init__()
        self.local_att = context(channels, reduction, self.pooled[0], norm=norm)
        self.global_att = context(channels, reduction, self.pooled[1], norm=norm)

    def weight(self, x):
        return torch.sigmoid(self.local_att(x) + self.global_att(x))


class AXYforXplusYAddFuse(_TwoContexts):
    """w = s(L1(x + res) + G1(x + res)); w * res + x."""

    def fused(self, x, residual):
        return residual * self.weight(x + residual) + x


class AXYforXYAddFuse(_TwoContexts):
    """w = s(L1(x + res) + G1(x + res)); w * (x + res)."""

    def fused(self, x, residual):
        return (x + residual) * self.weight(x + residual)


class AYforXplusYAddFuse(_TwoContexts):
    """w = s(L1(x) + G1(x)); w * res + x."""

    def fused(self, x, residual):
        return residual * self.weight(x) + x


class XplusAYforYAddFuse(_TwoContexts):
    """w = s(L1(x) + G1(x)); res + w * x."""

    def fused(self, x, residual):
        return residual + x * self.weight(x)


class AFF(_TwoContexts):
    """AFF: w = s(L2(x + res) + G2(x + res)); 2 * (x * w + res * (1 - w)).

    Parameters
    ----------
    channels : int
        Channels C of both inputs and of the output.
    reduction : int or None
        Reduction r of both bottlenecks, which must divide C.  None: one 1x1 convolution each.
    doubled : bool
        False leaves the factor 2 out, as the paper's equation 4 does.
    norm : callable
        ``norm(channels)`` makes a norm.
    """

    def __init__(self, channels=64, reduction=4, doubled=True, norm=BatchNorm):
        super().__init__(channels, reduction, norm)
        self.factor = 2 if doubled else 1

    def fused(self, x, residual):
        return self.factor * mean_of(x, residual, self.weight(x + residual))


class ResGlobLocaChaFuse(AFF):
    """AFF of one 1x1 convolution per context."""

    def __init__(self, channels=64, reduction=None, doubled=True, norm=BatchNorm):
        super().__init__(channels, reduction, doubled, norm)


class ResGlobGlobChaFuse(AFF):
    """AFF of two global contexts."""

    pooled = (True, True)


class ResLocaLocaChaFuse(AFF):
    """AFF of two local contexts."""

    pooled = (False, False)


class ConcatAFF(Fusion):
    """w = s(norm(1x1 convolution of [ReLU(L2(u)), ReLU(G2(u))])), u = x + res; AFF's sum."""

    def __init__(self, channels=64, reduction=4, doubled=True, norm=BatchNorm):
        super().__init__()
        self.factor = 2 if doubled else 1
        reduction, width = self.form(channels, reduction)
        both = [context(channels, reduction, pool, width, norm=norm) for pool in (False, True)]
        self.local_att, self.global_att = (body.append(nn.ReLU()) for body in both)
        self.fuse = nn.Sequential(nn.Conv2d(2 * width, channels, 1), norm(channels))

    def form(self, channels, reduction):
        """Reduction and output channels of both contexts."""
        return reduction, channels

    def fused(self, x, residual):
        one, other = self.local_att(x + residual), self.global_att(x + residual)
        weight = torch.sigmoid(self.fuse(torch.cat([one, other.expand_as(one)], dim=1)))
        return self.factor * mean_of(x, residual, weight)


class HalfAFF(ConcatAFF):
    """Concat-AFF with the first half of both bottlenecks, C -> C // r, alone."""

    def form(self, channels, reduction):
        return None, hidden_channels(channels, 1 if reduction is None else reduction)


class _FourContexts(Fusion):
    def __init__(self, channels=64, reduction=4, doubled=False, norm=BatchNorm):
        super().__init__()
        self.factor = 2 if doubled else 1
        self.local_att = context(channels, reduction, norm=norm)
        self.global_att = context(channels, reduction, pool=True, norm=norm)
        self.local_att2 = context(channels, reduction, norm=norm)
        self.global_att2 = context(channels, reduction, pool=True, norm=norm)


class RecursiveAFF(_FourContexts):
    """l = L2(u), g = G2(u), u = x + res, are themselves fused by attention.

    v = s(L2'(l + g) + G2'(l + g)); w = s(l * v + g * (1 - v)); x * w + res * (1 - w).
    """

    def fused(self, x, residual):
        one, other = self.local_att(x + residual), self.global_att(x + residual)
        weight = torch.sigmoid(self.local_att2(one + other) + self.global_att2(one + other))
        weight = torch.sigmoid(mean_of(one, other, weight))
        return self.factor * mean_of(x, residual, weight)


class IAFF(_FourContexts):
    """iAFF: a first AFF, without factor 2, makes the second one's input.

    w1 = s(L2(x + res) + G2(x + res)); i = x * w1 + res * (1 - w1);
    w2 = s(L2'(i) + G2'(i)); x * w2 + res * (1 - w2).

    Parameters
    ----------
    channels : int
        Channels C of both inputs and of the output.
    reduction : int or None
        Reduction r of the four bottlenecks, which must divide C.  None: one 1x1 convolution each.
    doubled : bool
        True: an output twice as large.
    norm : callable
        ``norm(channels)`` makes a norm.
    """

    def fused(self, x, residual):
        weight = torch.sigmoid(self.local_att(x + residual) + self.global_att(x + residual))
        initial = mean_of(x, residual, weight)
        weight = torch.sigmoid(self.local_att2(initial) + self.global_att2(initial))
        return self.factor * mean_of(x, residual, weight)


class ResGlobforGlobChaFuse(Fusion):
    """Twice w = s(G1(.)) and AFF's sum, the second time of the first sum."""

    pool = True
    names = ("global_att", "global_att2")

    def __init__(self, channels=64, reduction=None, doubled=True, norm=BatchNorm):
        super().__init__()
        self.factor = 2 if doubled else 1
        for name in self.names:
            setattr(self, name, context(channels, reduction, self.pool, norm=norm))

    def fused(self, x, residual):
        total = x + residual
        for name in self.names:
            weight = torch.sigmoid(getattr(self, name)(total))
            total = self.factor * mean_of(x, residual, weight)
        return total


class ResLocaforLocaChaFuse(ResGlobforGlobChaFuse):
    """Twice w = s(L1(.)) and AFF's sum, the second time of the first sum."""

    pool = False
    names = ("local_att", "local_att2")


class ResGlobChaFuse(Fusion):
    """w = s(G2(x + res)) with r = 1; AFF's sum."""

    pool = True

    def __init__(self, channels=64, doubled=True, norm=BatchNorm):
        super().__init__()
        self.factor = 2 if doubled else 1
        self.attention = context(channels, 1, self.pool, sigmoid=True, norm=norm)

    def fused(self, x, residual):
        return self.factor * mean_of(x, residual, self.attention(x + residual))


class ResLocaChaFuse(ResGlobChaFuse):
    """w = s(L2(x + res)) with r = 1; AFF's sum."""

    pool = False


class SEFuse(Fusion):
    """w = s(G2(x)); res + w * x."""

    def __init__(self, channels=64, reduction=4, norm=BatchNorm):
        super().__init__()
        self.global_att = context(channels, reduction, pool=True, sigmoid=True, norm=norm)

    def fused(self, x, residual):
        return residual + x * self.global_att(x)


class GAUFuse(Fusion):
    """w = s(G1(x)); w * res + x."""

    def __init__(self, channels=64, reduction=None, norm=BatchNorm):
        super().__init__()
        self.global_att = context(channels, reduction, pool=True, sigmoid=True, norm=norm)

    def fused(self, x, residual):
        return residual * self.global_att(x) + x


class SKFuse(Fusion):
    """G2(x + res) gives 2C values; a softmax over the two halves gives w and 1 - w; AFF's sum."""

    def __init__(self, channels=64, doubled=True, norm=BatchNorm):
        super().__init__()
        self.factor = 2 if doubled else 1
        self.global_att = context(channels, 4, pool=True, out_channels=2 * channels, norm=norm)

    def fused(self, x, residual):
        first, second = self.global_att(x + residual).chunk(2, dim=1)
        # The softmax of two values is the sigmoid of their difference.
        return self.factor * mean_of(x, residual, torch.sigmoid(first - second))


FUSIONS = {  # as the names of networks begin
    "add": DirectAddFuse,
    "concat": ConcatFuse,
    "axyforxplusyadd": AXYforXplusYAddFuse,
    "axyforxyadd": AXYforXYAddFuse,
    "ayforxplusyadd": AYforXplusYAddFuse,
    "xplusayforyadd": XplusAYforYAddFuse,
    "aff": AFF,
    "resgloblocacha": ResGlobLocaChaFuse,
    "globglob": ResGlobGlobChaFuse,
    "localoca": ResLocaLocaChaFuse,
    "concataff": ConcatAFF,
    "halfaff": HalfAFF,
    "recursiveaff": RecursiveAFF,
    "iaff": IAFF,
    "globforglob": ResGlobforGlobChaFuse,
    "locaforloca": ResLocaforLocaChaFuse,
    "glob": ResGlobChaFuse,
    "loca": ResLocaChaFuse,
    "se": SEFuse,
    "gau": GAUFuse,
    "sk": SKFuse,
}
CLASSES = {fusion.__name__: fusion for fusion in FUSIONS.values()}
CLASSES.update(ASKCFuse=AFF, ResGlobLocaforGlobLocaChaFuse=IAFF)  # the authors' names


def fusion_factory(fusion, reduction=None, doubled=None, defaults=None, norm=BatchNorm):
    """``f(channels)``, which a network calls once a block.

    Parameters
    ----------
    fusion : str or callable
        A key of ``FUSIONS``, a class of this file or its name, or your own ``f(channels)``.
    reduction, doubled : optional
        Options of the fusion, where it has them.
    defaults : dict, optional
        The network's own defaults of such options.
    norm : callable
        ``norm(channels)`` makes a norm.
    """
    if isinstance(fusion, str):
        if fusion not in FUSIONS and fusion not in CLASSES:
            raise ValueError(f"unknown fusion {fusion!r} (known: {', '.join(FUSIONS)})")
        fusion = FUSIONS.get(fusion) or CLASSES[fusion]
    if not callable(fusion):
        raise ValueError(f"fusion must be a name or a callable f(channels), not {fusion!r}")
    ours = isinstance(fusion, type) and issubclass(fusion, Fusion)
    takes = inspect.signature(fusion).parameters if ours else {}
    options = {"norm": norm} if ours else {}
    for name, value in (defaults or {}).items():
        if name in takes and takes[name].default is not None:
            options[name] = value
    for name, value in (("reduction", reduction), ("doubled", doubled)):
        if value is not None:
            if name not in takes:
                called = getattr(fusion, "__name__", fusion)
                raise ValueError(f"{name}={value!r} has no effect on {called}")
            options[name] = value
    return partial(fusion, **options)


# --- Blocks ---------------------------------------------------------------------------------------


class InceptionCell(nn.Module):
    """Two 3x3 convolutions, the second dilated, and a fusion of both: the same-layer scenario."""

    def __init__(self, channels, in_channels, stride=1, fusion=AFF, norm=BatchNorm):
        super().__init__()
        self.attention = fusion(channels)
        plain = isinstance(self.attention, DirectAddFuse)  # then without norms
        for dilation in (1, 2):
            conv = conv3x3(channels, in_channels, stride, dilation=dilation, bias=True)
            branch = nn.Sequential(conv, *([] if plain else [norm(channels)]))
            setattr(self, f"branch{dilation}", branch)

    def forward(self, x):
        return self.attention(self.branch2(x), self.branch1(x))


class PreActBlock(nn.Module):
    """Pre-activation basic block whose sum is a fusion."""

    def __init__(self, channels, in_channels, stride, hidden, fusion, norm, conv, options):
        super().__init__()
        self.resfwd = nn.Sequential(
            norm(in_channels),
            nn.ReLU(),
            conv(hidden, in_channels, stride),
            last_norm(norm, hidden, options.last_gamma),
            nn.ReLU(),
            conv(channels, hidden),
        )
        self.downsample = None
        if stride != 1 or channels != in_channels:
            self.downsample = shortcut(channels, in_channels, stride, options.avg_down)
        self.attention = fusion(channels)

    def forward(self, x):
        residual = x if self.downsample is None else self.downsample(x)
        return self.attention(self.resfwd(x), residual)


class _PostActBlock(nn.Module):
    """A residual block whose sum is a fusion, with a ReLU at the end."""

    expansion = 4

    def __init__(self, planes, in_channels, stride, downsample, fusion, norm, options, **more):
        super().__init__()
        channels = self.expansion * planes
        self.add_branch(planes, in_channels, stride, norm, options.last_gamma, **more)
        self.se = squeeze_excite(channels) if options.use_se else None
        self.downsample = downsample
        self.attention = fusion(channels)

    def forward(self, x):
        residual = x if self.downsample is None else self.downsample(x)
        x = self.branch(x)
        if self.se is not None:
            x = x * self.se(x)
        return F.relu(self.attention(x, residual))


class BasicBlock(_PostActBlock):
    """ResNet v1b basic block: two 3x3 convolutions, the first strided."""

    expansion = 1

    def add_branch(self, planes, in_channels, stride, norm, last_gamma, dilations=(1, 1)):
        self.conv1 = conv3x3(planes, in_channels, stride, dilation=dilations[0])
        self.bn1 = norm(planes)
        self.conv2 = conv3x3(planes, planes, dilation=dilations[1])
        self.bn2 = last_norm(norm, planes, last_gamma)

    def branch(self, x):
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))


class Bottleneck(_PostActBlock):
    """ResNet v1b bottleneck: the stride is the 3x3 convolution's."""

    def add_branch(self, planes, in_channels, stride, norm, last_gamma, dilations=(1, 1)):
        self.conv1 = conv1x1(planes, in_channels)
        self.bn1 = norm(planes)
        self.conv2 = conv3x3(planes, planes, stride, dilation=dilations[0])
        self.bn2 = norm(planes)
        self.conv3 = conv1x1(4 * planes, planes)
        self.bn3 = last_norm(norm, 4 * planes, last_gamma)

    def branch(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class ResNeXtBlock(_PostActBlock):
    """ResNeXt bottleneck, the 3x3 convolution strided and in groups of 4 channels per 64 planes."""

    def add_branch(self, planes, in_channels, stride, norm, last_gamma, groups=32):
        width = groups * (planes * 4 // 64)
        self.body = nn.Sequential(
            conv1x1(width, in_channels),
            norm(width),
            nn.ReLU(),
            conv3x3(width, width, stride, groups),
            norm(width),
            nn.ReLU(),
            conv1x1(4 * planes, width),
            last_norm(norm, 4 * planes, last_gamma),
        )

    def branch(self, x):
        return self.body(x)


class PyramidFusion(nn.Module):
    """A step down a feature pyramid, whose sum is a fusion: the long skip connection.

    y = ReLU(norm(1x1 convolution of ``high``, resized as ``low``)); ReLU(norm(3x3 convolution of
    fuse(y, low))).  ``low`` is (N, C, H, W), ``high`` (N, high_channels, h, w).
    """

    def __init__(self, fusion, channels, high_channels, norm=BatchNorm):
        super().__init__()
        self.high = nn.Conv2d(high_channels, channels, 1)
        self.high_norm = norm(channels)
        self.attention = fusion(channels)
        conv = conv3x3(channels, channels, bias=True)
        self.post = nn.Sequential(conv, norm(channels), nn.ReLU())

    def forward(self, low, high):
        high = resize_like(self.high(high), low)
        return self.post(self.attention(F.relu(self.high_norm(high)), low))


# --- Networks -------------------------------------------------------------------------------------

COMMON = {  # options of all networks, and their defaults
    "fusion": "add",  # see fusion_factory
    "num_classes": 1000,
    "reduction": None,  # of the fusion, by default the network's
    "doubled": None,  # whether the fusion's sum has its factor 2, by default the fusion's
    "first_fused_stage": 1,  # stages before it use the plain sum
    "deep_stem": False,  # three 3x3 convolutions instead of one convolution
    "avg_down": True,  # average pooling before the shortcut's convolution, not a stride
    "last_gamma": False,  # start every block's branch at 0
    "features_only": False,  # give the list of all stages' outputs instead of logits
    "norm_kwargs": None,  # of BatchNorm
}
POST_ACT = {**COMMON, "use_se": False}  # squeeze-and-excitation on every branch


def check_options(network, options):
    """The options with their defaults; a :class:`ValueError` names an unknown one."""
    for name in options:
        if name not in network.defaults:
            known = ", ".join(network.defaults)
            raise ValueError(f"{network.__name__} has no option {name!r} (its options: {known})")
    return SimpleNamespace(**{**network.defaults, **options})


class StagedNet(nn.Module):
    """A network of stages: float (N, 3, H, W), normalised -> logits (N, num_classes)."""

    defaults = COMMON
    fusion_defaults = {"reduction": 16}

    def __init__(self, options):
        super().__init__()
        self.options = options = check_options(type(self), options)
        self.norm = partial(BatchNorm, **(options.norm_kwargs or {}))
        self.fusion = fusion_factory(
            options.fusion, options.reduction, options.doubled, self.fusion_defaults, self.norm
        )
        self.stages, self.widths = [], []  # names and channels of the stages

    def fusion_of(self, stage):
        return self.fusion if stage >= self.options.first_fused_stage else DirectAddFuse

    def add_stages(self, blocks, widths, strides, in_channels):
        first, none = self.options.first_fused_stage, len(strides) + 1
        if first not in range(1, none + 1):
            raise ValueError(f"first_fused_stage must be 1 to {none}, not {first!r}")
        for name in ("reduction", "doubled"):
            if first == none and getattr(self.options, name) is not None:
                raise ValueError(f"{name} has no effect: no stage is fused")
        for number, (count, channels, stride) in enumerate(zip(blocks, widths, strides), start=1):
            first = self.make_block(number, True, in_channels, channels, stride)
            rest = (self.make_block(number, False, channels, channels, 1) for _ in range(1, count))
            self.stages.append(self.add_stage(number, nn.Sequential(first, *rest)))
            self.widths.append(channels)
            in_channels = channels

    def add_stage(self, number, stage):
        self.features.append(stage)
        return len(self.features) - 1

    def add_head(self, *layers):
        self.output = None
        if not self.options.features_only:
            self.features.extend(layers)
            self.output = nn.Linear(self.widths[-1], self.options.num_classes)

    def forward(self, x):
        if self.output is not None:
            return self.output(torch.flatten(self.features(x), 1))
        outputs = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.stages:
                outputs.append(x)
        return outputs


class CIFARResNet(StagedNet):
    """Pre-activation ResNet of depth 6b + 2: three stages of 16m, 32m and 64m channels."""

    defaults = {**COMMON, "num_classes": 100, "width_multiplier": 4}  # m
    fusion_defaults = {"reduction": 4}

    def __init__(self, depth, **options):
        super().__init__(options)
        blocks = blocks_a_stage(depth, 6)
        widths = [round(channels * self.options.width_multiplier) for channels in (16, 32, 64)]
        conv = self.conv_of(1)
        stem = [conv(widths[0], 3)]
        if self.options.deep_stem:
            stem = deep_stem(widths[0], widths[0] // 2, self.norm, conv=conv)
        self.features = nn.Sequential(self.norm(3, scale=False, center=False), *stem)
        self.add_stages((blocks,) * 3, widths, (1, 2, 2), widths[0])
        self.add_head(self.norm(widths[-1]), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def conv_of(self, stage):
        """What makes a stage's 3x3 convolutions; the stem's are the first stage's."""
        return conv3x3

    def make_block(self, stage, first, in_channels, channels, stride):
        fusion, conv = self.fusion_of(stage), self.conv_of(stage)
        return PreActBlock(
            channels, in_channels, stride, channels, fusion, self.norm, conv, self.options
        )


class InceptionResNet(CIFARResNet):
    """CIFAR ResNet with an InceptionCell for every 3x3 convolution; its blocks have plain sums."""

    defaults = {**CIFARResNet.defaults, "avg_down": False}
    fusion_defaults = {"reduction": None, "doubled": False, "normalized": False}

    def conv_of(self, stage):
        return partial(InceptionCell, fusion=self.fusion_of(stage), norm=self.norm)

    def make_block(self, stage, first, in_channels, channels, stride):
        if first:  # a block's first cell has the channels of its stage's input
            self.hidden = in_channels
        conv = self.conv_of(stage)
        return PreActBlock(
            channels, in_channels, stride, self.hidden, DirectAddFuse, self.norm, conv, self.options
        )


class PostActNet(StagedNet):
    """Stages of P, 2P, 4P, ... planes, with a ReLU at the end of every block."""

    defaults = POST_ACT
    first_pooled_stage = 1  # whose shortcut may average

    def build_stages(self, blocks, strides, in_channels, block, planes=64, **more):
        self.block, self.more = block, more
        widths = [block.expansion * planes * 2**index for index in range(len(blocks))]
        self.add_stages(blocks, widths, strides, in_channels)

    def make_block(self, stage, first, in_channels, channels, stride):
        downsample = None
        if stride != 1 or in_channels != channels:
            pooled = self.options.avg_down and stage >= self.first_pooled_stage
            downsample = shortcut(channels, in_channels, stride, pooled, self.norm)
        planes, fusion = channels // self.block.expansion, self.fusion_of(stage)
        return self.block(
            planes, in_channels, stride, downsample, fusion, self.norm, self.options, **self.more
        )


class CIFARResNeXt(PostActNet):
    """ResNeXt of depth 9b + 2: three stages of 64, 128 and 256 planes."""

    defaults = {**POST_ACT, "num_classes": 100, "last_gamma": True}

    def __init__(self, depth, groups=32, **options):
        super().__init__(options)
        blocks = blocks_a_stage(depth, 9)
        stem = deep_stem(64, 32, self.norm) if self.options.deep_stem else [conv3x3(64, 3)]
        self.features = nn.Sequential(*stem, self.norm(64), nn.ReLU())
        self.build_stages((blocks,) * 3, (1, 2, 2), 64, ResNeXtBlock, groups=groups)
        self.add_head(nn.AdaptiveAvgPool2d(1))


BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResNeXt(PostActNet):
    """ResNeXt-50, -101 and -152 for ImageNet."""

    defaults = {**POST_ACT, "first_fused_stage": 3, "deep_stem": True, "last_gamma": True}
    first_pooled_stage = 2

    def __init__(self, depth, groups=32, **options):
        super().__init__(options)
        if depth not in (50, 101, 152):
            raise ValueError(f"no ResNeXt has depth {depth}: it is 50, 101 or 152")
        stem, channels = [nn.Conv2d(3, 64, 7, 2, 3, bias=False)], 64
        if self.options.deep_stem:
            stem, channels = deep_stem(128, 64, self.norm, stride=2), 128
        self.features = nn.Sequential(
            *stem, self.norm(channels), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)
        )
        self.build_stages(BLOCKS[depth], (1, 2, 2, 2), channels, ResNeXtBlock, groups=groups)
        self.add_head(nn.AdaptiveAvgPool2d(1))


class ResNet(PostActNet):
    """ResNet-18 to -152 (v1b, v1d) for ImageNet."""

    # dilated: no stride in the last two stages, dilation 2 and 4 instead
    defaults = {**POST_ACT, "first_fused_stage": 3, "deep_stem": True, "dilated": False}

    def __init__(self, depth, **options):
        super().__init__(options)
        if depth not in BLOCKS:
            raise ValueError(f"no ResNet has depth {depth}: it is one of {sorted(BLOCKS)}")
        dilated = self.options.dilated
        self.dilations = (1, 1, 2, 4) if dilated else (1, 1, 1, 1)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        if self.options.deep_stem:
            self.conv1 = nn.Sequential(*deep_stem(64, 32, self.norm, stride=2))
        self.bn1 = self.norm(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        strides = (1, 2, 1, 1) if dilated else (1, 2, 2, 2)
        self.build_stages(BLOCKS[depth], strides, 64, BasicBlock if depth < 50 else Bottleneck)
        self.fc = None
        if not self.options.features_only:
            self.fc = nn.Linear(self.widths[-1], self.options.num_classes)

    def make_block(self, stage, first, in_channels, channels, stride):
        dilation = self.dilations[stage - 1]
        # The first convolution of a stage still sees the map of the stage before.
        before = self.dilations[max(stage - 2, 0)] if first else dilation
        self.more = {"dilations": (before, dilation)}
        return super().make_block(stage, first, in_channels, channels, stride)

    def add_stage(self, number, stage):
        setattr(self, f"layer{number}", stage)
        return f"layer{number}"

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        outputs = []
        for name in self.stages:
            x = getattr(self, name)(x)
            outputs.append(x)
        return outputs if self.fc is None else self.fc(x.mean(dim=(2, 3)))


class SmallResNet(PostActNet):
    """The pyramids' host of depth 6b + 2: three stages of 16t, 32t and 64t channels."""

    # width_multiplier: t
    defaults = {**POST_ACT, "deep_stem": True, "avg_down": False, "width_multiplier": 4}
    fusion_defaults = {"reduction": 4}

    def __init__(self, depth, **options):
        super().__init__(options)
        blocks = blocks_a_stage(depth, 6)
        channels, deep = round(16 * self.options.width_multiplier), self.options.deep_stem
        stem, end = [conv3x3(channels, 3)], []
        if deep:
            stem = deep_stem(channels, channels // 2, self.norm, stride=2)
            end = [nn.MaxPool2d(3, 2, padding=1)]
        first = self.norm(3, scale=False, center=False)
        self.features = nn.Sequential(first, *stem, self.norm(channels), nn.ReLU(), *end)
        self.build_stages((blocks,) * 3, (1, 2, 2), channels, BasicBlock, channels)
        self.add_head(nn.AdaptiveAvgPool2d(1))


def blocks_a_stage(depth, period):
    """b of a depth ``period * b + 2``."""
    blocks, rest = divmod(depth - 2, period)
    if blocks < 1 or rest:
        raise ValueError(f"there is no network of depth {depth}: it must be {period}b + 2")
    return blocks


class FPN(nn.Module):
    """A feature pyramid whose sums are fusions, and a head for semantic segmentation.

    float (N, 3, H, W), normalised -> logits (N, num_classes, H, W).  ``fusion``, ``reduction`` and
    ``doubled`` are of the pyramid's sums; ``host_fusion`` and the other options of the host.
    """

    host = None
    more = {"num_classes": 1, "host_fusion": "add", "dropout": 0.1}
    fusion_defaults = {"reduction": 16}

    def __init__(self, *numbers, **options):
        super().__init__()
        self.options = options = check_options(type(self), options)
        asked, usual = options.first_fused_stage, self.defaults["first_fused_stage"]
        if options.host_fusion == "add" and asked != usual:
            raise ValueError(f"first_fused_stage={asked!r} has no effect without host_fusion")
        norm = partial(BatchNorm, **(options.norm_kwargs or {}))
        fusion = fusion_factory(
            options.fusion, options.reduction, options.doubled, self.fusion_defaults, norm
        )
        own = ("fusion", "num_classes", "reduction", "doubled", "host_fusion", "dropout")
        hosts = {name: value for name, value in vars(options).items() if name not in own}
        hosts.update(fusion=options.host_fusion, features_only=True)
        self.bottom_up = self.host(*numbers, **hosts)
        widths = self.bottom_up.widths
        self.top_down = nn.Sequential(
            *(PyramidFusion(fusion, low, high, norm) for low, high in zip(widths, widths[1:]))
        )
        self.head = self.output = None
        if not options.features_only:
            hidden = widths[0] // 4
            self.head = nn.Sequential(
                conv3x3(hidden, widths[0]), norm(hidden), nn.ReLU(), nn.Dropout(options.dropout)
            )
            self.output = nn.Conv2d(hidden, options.num_classes, 1)

    def forward(self, x):
        maps = self.bottom_up(x)
        for level in reversed(range(len(self.top_down))):
            maps[level] = self.top_down[level](maps[level], maps[level + 1])
        return maps if self.output is None else resize_like(self.output(self.head(maps[0])), x)


class FPNResNet(FPN):
    """A pyramid on the ResNet of ImageNet."""

    host = ResNet
    defaults = {**ResNet.defaults, **FPN.more}


class FPNResNeXt(FPN):
    """A pyramid on the ResNeXt of ImageNet."""

    host = ResNeXt
    defaults = {**ResNeXt.defaults, **FPN.more}


class FPNSmallResNet(FPN):
    """A pyramid on the paper's host."""

    host = SmallResNet
    defaults = {**SmallResNet.defaults, **FPN.more}
    fusion_defaults = {"reduction": 4}


BACKBONES = (  # of several patterns that a name fits, the first counts
    (r"cifar_resnet(\d+)", CIFARResNet),
    (r"cifar_inception_resnet(\d+)", InceptionResNet),
    (r"cifar_resnext(\d+)_(32)x4d", CIFARResNeXt),
    (r"resnet(\d+)", ResNet),
    (r"resnext(\d+)_(32|64)x4d", ResNeXt),
    (r"fpn_resnet(18|34|50|101|152)", FPNResNet),
    (r"fpn_resnext(\d+)_(32|64)x4d", FPNResNeXt),
    (r"fpn_resnet(\d+)", FPNSmallResNet),
)


def create(name, **options):
    """A network by name, with PyTorch's initial weights.

    Parameters
    ----------
    name : str
        ``<fusion>_<backbone>``, such as ``aff_cifar_resnet32``, or a backbone alone, which takes
        the option ``fusion``.
    options
        See ``defaults`` of the network's class.

    Raises
    ------
    ValueError
        An unknown name or option.  An impossible value may raise PyTorch's own errors.
    """
    key, _, rest = name.partition("_")
    for fusion, backbone in ((None, name), (key, rest)):
        for pattern, network in BACKBONES:
            match = re.fullmatch(pattern, backbone)
            if match and (fusion is None or fusion in FUSIONS):
                if fusion is not None:
                    if "fusion" in options:
                        raise ValueError(f"the name {name!r} has a fusion already")
                    options["fusion"] = fusion
                return network(*map(int, match.groups()), **options)
    raise ValueError(f"unknown network {name!r}: write <fusion>_<backbone>, as aff_cifar_resnet32")


def load(path):
    """The network of an export folder, with its weights, in evaluation mode.

    Parameters
    ----------
    path : path-like
        The folder, or one ``.safetensors`` file that openaff wrote.

    Raises
    ------
    ValueError
        No such file, several of them, or a file that is damaged or does not say which network it is
        of.
    """
    from safetensors import SafetensorError, safe_open

    path = pathlib.Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            raise ValueError(f"{path} holds {len(files)} .safetensors files: name one file")
        path = files[0]
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("openaff", "null"))
            state = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    known = isinstance(facts, dict) and isinstance(facts.get("model"), str)
    if not known or not isinstance(facts.get("options"), dict):
        raise ValueError(
            f"{path} does not say which network it is of: use create(NAME) and load_state_dict"
        )
    try:
        net = create(facts["model"], **facts["options"])
        net.load_state_dict(state)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        lines = str(error).strip().splitlines()
        raise ValueError(f"{path} does not fit {facts['model']}: {lines[-1].strip()}") from None
    return net.eval()
