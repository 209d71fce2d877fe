"""Fusion blocks: two feature maps of one shape in, one of that shape out.

Every block takes ``x``, the branch's output (the learned residual, "Y" in the class names), and
``residual``, the skip connection ("X" in the class names).  In the equations L and G are the
local and the global channel context, index 1 a single 1x1 convolution, index 2 a bottleneck, and
s is the sigmoid; the child names are the published checkpoints' keys.  ``docs/networks.md`` tells
which class is which in the article, the paper and the checkpoints.

Two options are the same wherever a class has them.  ``reduction`` is the bottlenecks' r, or
``None`` for one 1x1 convolution per context; ``doubled`` is the factor 2 of the weighted sum.  The
equations in the docstrings are those of the defaults.

Attentional Feature Fusion (Dai et al., WACV 2021), https://arxiv.org/abs/2009.14082
"""

import inspect

from mxnet.gluon import nn

from .attention import ConcatConv2D, ContextBlock, hidden_channels, sigmoid
from .utils.errors import UserError, positive_int
from .utils.imports import import_object
from .utils.outline import outline
from .utils.registry import Registry

FUSIONS = Registry("fusion", plain=True)  # a model id is <key>_<backbone>


class Fusion(ContextBlock):
    """What all fusion blocks share: the inputs' checks.

    Parameters
    ----------
    channels : int
        Channels C of both inputs and of the output.
    norm_layer, norm_kwargs
        The normalisation layer and its keyword arguments.

    Inputs and output are float maps of one shape (N, C, H, W).

    Raises
    ------
    UserError
        When built: channels that the reduction does not divide.  When called on arrays: one input
        only, inputs of different shapes, or channels other than C.
    """

    def forward(self, x, residual=None):
        name = type(self).__name__
        if residual is None:
            raise UserError(f"{name} fuses two feature maps: call it as fuse(x, residual)")
        if hasattr(x, "shape") and hasattr(residual, "shape"):  # arrays; symbols have no shape yet
            if x.shape != residual.shape:
                raise UserError(
                    f"{name} needs two feature maps of one shape, not {x.shape} and "
                    f"{residual.shape}"
                )
            if len(x.shape) != 4 or self._channels not in (None, x.shape[1]):
                raise UserError(
                    "{} was built for maps of shape (N, {}, H, W), not {}".format(
                        name, self._channels or "C", x.shape
                    )
                )
        return super().forward(x, residual)

    __repr__ = outline


def weighted_mean(F, x, residual, weight):
    """``x * weight + residual * (1 - weight)``, written with one product."""
    return residual + F.broadcast_mul(x - residual, weight)


def weighted_sum(F, x, residual, weight):
    """``2 * x * weight + 2 * residual * (1 - weight)``: the plain sum where the weight is 1/2.

    The paper's equation 4 has no factor 2; the trained networks do.
    """
    mean = weighted_mean(F, x, residual, weight)
    return mean + mean  # on a CPU oneDNN adds, and a product with 2 costs more in both directions


def selection(doubled):
    """:func:`weighted_sum` where ``doubled``, otherwise :func:`weighted_mean`."""
    if not isinstance(doubled, bool):
        raise UserError(f"doubled must be true or false, not {doubled!r}")
    return weighted_sum if doubled else weighted_mean


@FUSIONS.register("add", "DirectAddFuse")
class DirectAddFuse(Fusion):
    """The plain sum, ``x + residual``. Needs no ``channels``; given ones are checked."""

    def __init__(self, channels=None, **kwargs):
        super().__init__(channels, **kwargs)

    def hybrid_forward(self, F, x, residual):
        return x + residual


@FUSIONS.register("concat", "ConcatFuse")
class ConcatFuse(Fusion):
    """Concatenation, then batch norm (2C) and a 1x1 convolution back to C channels.

    Parameters
    ----------
    channels : int
        Channels C of both inputs and of the output.
    norm_layer, norm_kwargs
        The normalisation layer and its keyword arguments.
    normalized : bool
        False leaves the batch norm out, as the same-layer networks do.
    """

    def __init__(
        self, channels=64, norm_layer=nn.BatchNorm, norm_kwargs=None, normalized=True, **kwargs
    ):
        super().__init__(channels, **kwargs)
        self._normalized = normalized
        with self.name_scope():
            self.fuse = nn.HybridSequential()
            with self.fuse.name_scope():
                if normalized:
                    self.fuse.add(norm_layer(in_channels=2 * channels, **(norm_kwargs or {})))
                self.fuse.add(ConcatConv2D(channels, channels))

    def hybrid_forward(self, F, x, residual):
        if self._normalized:
            return self.fuse(F.concat(x, residual, dim=1))
        one, other = self.fuse[0](x, residual)
        return one + other


# --- A local and a global context, one weight -----------------------------------------------------


class _TwoContextFuse(Fusion):
    """w = s(local(.) + global(.)), by default of one 1x1 convolution each."""

    _pooled = (False, True)  # whether local_att and global_att start with the pooling

    def __init__(self, channels=64, reduction=None, **kwargs):
        super().__init__(channels, **kwargs)
        self.local_att = self.context(reduction, pool=self._pooled[0])
        self.global_att = self.context(reduction, pool=self._pooled[1])

    def _weight(self, F, u):
        one, other = self.local_att(u), self.global_att(u)
        if self._pooled == (False, True):
            return self.joint_weight(F, one, other)
        return sigmoid(F, one + other)  # of one shape


@FUSIONS.register("axyforxplusyadd", "AXYforXplusYAddFuse")
class AXYforXplusYAddFuse(_TwoContextFuse):
    """The paper's MS-SA: w = s(L1(x + res) + G1(x + res)); w·res + x.

    The article's heading for it is AFF.
    """

    def hybrid_forward(self, F, x, residual):
        return F.broadcast_mul(residual, self._weight(F, x + residual)) + x


@FUSIONS.register("axyforxyadd", "AXYforXYAddFuse")
class AXYforXYAddFuse(_TwoContextFuse):
    """w = s(L1(x + res) + G1(x + res)); w·(x + res). The article's heading for it is iAFF."""

    def hybrid_forward(self, F, x, residual):
        total = x + residual
        return F.broadcast_mul(total, self._weight(F, total))


@FUSIONS.register("ayforxplusyadd", "AYforXplusYAddFuse")
class AYforXplusYAddFuse(_TwoContextFuse):
    """The paper's MS-GAU: w = s(L1(x) + G1(x)); w·res + x."""

    def hybrid_forward(self, F, x, residual):
        return F.broadcast_mul(residual, self._weight(F, x)) + x


@FUSIONS.register("xplusayforyadd", "XplusAYforYAddFuse")
class XplusAYforYAddFuse(_TwoContextFuse):
    """The paper's MS-SENet: w = s(L1(x) + G1(x)); res + w·x."""

    def hybrid_forward(self, F, x, residual):
        return residual + F.broadcast_mul(x, self._weight(F, x))


class _SelectFuse(_TwoContextFuse):
    """w = s(local(x + res) + global(x + res)); 2·x·w + 2·res·(1 - w)."""

    def __init__(self, channels=64, reduction=4, doubled=True, **kwargs):
        super().__init__(channels, reduction, **kwargs)
        self._select = selection(doubled)

    def hybrid_forward(self, F, x, residual):
        return self._select(F, x, residual, self._weight(F, x + residual))


@FUSIONS.register("aff", "ASKCFuse", "AFF")
class ASKCFuse(_SelectFuse):
    """AFF, equation 4, as trained: w = s(L2(x + res) + G2(x + res)); 2·x·w + 2·res·(1 - w).

    Parameters
    ----------
    channels : int
        Channels C of both inputs and of the output.
    reduction : int or None
        Reduction r of both bottlenecks, which must divide C; ``None``: one 1x1 convolution each.
    doubled : bool
        False leaves the factor 2 out, as the paper's equation does.
    """


@FUSIONS.register("resgloblocacha", "ResGlobLocaChaFuse")
class ResGlobLocaChaFuse(_SelectFuse):
    """The article's fusion: w = s(L1(x + res) + G1(x + res)); 2·x·w + 2·res·(1 - w)."""

    def __init__(self, channels=64, reduction=None, doubled=True, **kwargs):
        super().__init__(channels, reduction, doubled, **kwargs)


@FUSIONS.register("globglob", "ResGlobGlobChaFuse")
class ResGlobGlobChaFuse(_SelectFuse):
    """ "Global + Global" of the context-scale ablation: both contexts pool first."""

    _pooled = (True, True)


@FUSIONS.register("localoca", "ResLocaLocaChaFuse")
class ResLocaLocaChaFuse(_SelectFuse):
    """ "Local + Local" of the context-scale ablation: neither context pools."""

    _pooled = (False, False)


# --- Other ways to join both contexts, Table 6 ----------------------------------------------------


class _JoinedFuse(Fusion):
    """w = s(batch norm(1x1 convolution of [local, global])); 2·x·w + 2·res·(1 - w)."""

    def __init__(self, channels=64, reduction=4, doubled=True, **kwargs):
        super().__init__(channels, **kwargs)
        self._select = selection(doubled)
        self.local_att = self._rectified(reduction)
        self.global_att = self._rectified(reduction, pool=True)
        norm_layer, norm_kwargs = self._norm["norm_layer"], self._norm["norm_kwargs"] or {}
        with self.name_scope():
            self.fuse = nn.HybridSequential()
            with self.fuse.name_scope():
                self.fuse.add(
                    ConcatConv2D(channels, self._joined_channels(reduction)),
                    norm_layer(in_channels=channels, **norm_kwargs),
                )

    def _rectified(self, reduction, **options):
        body = self.context(reduction, **options)
        with body.name_scope():
            body.add(nn.Activation("relu"))
        return body

    def hybrid_forward(self, F, x, residual):
        conv, norm = self.fuse
        total = x + residual
        joint = self.joint_sum(F, *conv(self.local_att(total), self.global_att(total)))
        return self._select(F, x, residual, sigmoid(F, norm(joint)))


@FUSIONS.register("concataff", "ConcatAFF")
class ConcatAFF(_JoinedFuse):
    """Concat-AFF: w = s(batch norm(1x1 convolution of [ReLU(L2(u)), ReLU(G2(u))])), u = x + res.

    The output is 2·x·w + 2·res·(1 - w).
    """

    def _joined_channels(self, reduction):
        return self._channels


@FUSIONS.register("halfaff", "HalfAFF")
class HalfAFF(_JoinedFuse):
    """Half-AFF: Concat-AFF with the first half of both bottlenecks, C -> C // r, alone.

    Where ``reduction`` is ``None``, C -> C: then it has Concat-AFF's form.
    """

    def _joined_channels(self, reduction):
        return hidden_channels(self._channels, 1 if reduction is None else reduction)

    def _rectified(self, reduction, **options):
        return super()._rectified(None, out_channels=self._joined_channels(reduction), **options)


@FUSIONS.register("recursiveaff", "RecursiveAFF")
class RecursiveAFF(Fusion):
    """Recursive AFF: l = L2(u), g = G2(u), u = x + res, are themselves fused by attention.

    v = s(L2'(l + g) + G2'(l + g)); w = s(l·v + g·(1 - v)); x·w + res·(1 - w).
    """

    def __init__(self, channels=64, reduction=4, doubled=False, **kwargs):
        super().__init__(channels, **kwargs)
        self._select = selection(doubled)
        self.local_att = self.context(reduction)
        self.global_att = self.context(reduction, pool=True)
        self.local_att2 = self.context(reduction)
        self.global_att2 = self.context(reduction, pool=True)

    def hybrid_forward(self, F, x, residual):
        total = x + residual
        one = self.local_att(total)
        other = self.spread(F, self.global_att(total), one)  # once: what follows is element-wise
        joint = one + other
        weight = self.joint_weight(F, self.local_att2(joint), self.global_att2(joint))
        return self._select(F, x, residual, sigmoid(F, weighted_mean(F, one, other, weight)))


# --- Two rounds -----------------------------------------------------------------------------------


@FUSIONS.register("iaff", "ResGlobLocaforGlobLocaChaFuse", "IAFF")
class ResGlobLocaforGlobLocaChaFuse(Fusion):
    """iAFF, equation 5, as trained: a first AFF, without factor 2, makes the second one's input.

    w1 = s(L2(x + res) + G2(x + res)); i = x·w1 + res·(1 - w1);
    w2 = s(L2'(i) + G2'(i)); x·w2 + res·(1 - w2).

    Parameters
    ----------
    channels : int
        Channels C of both inputs and of the output.
    reduction : int or None
        Reduction r of the four bottlenecks, which must divide C; ``None``: one 1x1 convolution
        each.
    doubled : bool
        True: an output twice as large. The first round never has the factor.
    """

    def __init__(self, channels=64, reduction=4, doubled=False, **kwargs):
        super().__init__(channels, **kwargs)
        self._select = selection(doubled)
        self.local_att = self.context(reduction)
        self.global_att = self.context(reduction, pool=True)
        self.local_att2 = self.context(reduction)
        self.global_att2 = self.context(reduction, pool=True)

    def hybrid_forward(self, F, x, residual):
        total = x + residual
        weight = self.joint_weight(F, self.local_att(total), self.global_att(total))
        initial = weighted_mean(F, x, residual, weight)
        weight = self.joint_weight(F, self.local_att2(initial), self.global_att2(initial))
        return self._select(F, x, residual, weight)


class _TwoRoundFuse(Fusion):
    """Twice the same with one context: w = s(context(u)), u = 2·x·w + 2·res·(1 - w)."""

    def __init__(self, channels=64, reduction=None, doubled=True, **kwargs):
        super().__init__(channels, **kwargs)
        self._select = selection(doubled)
        self._add_contexts(reduction)

    def _rounds(self, F, x, residual, first, second):
        fused = self._select(F, x, residual, sigmoid(F, first(x + residual)))
        return self._select(F, x, residual, sigmoid(F, second(fused)))


@FUSIONS.register("globforglob", "ResGlobforGlobChaFuse")
class ResGlobforGlobChaFuse(_TwoRoundFuse):
    """Two rounds of s(G1(.)), both 2·x·w + 2·res·(1 - w)."""

    def _add_contexts(self, reduction):
        self.global_att = self.context(reduction, pool=True)
        self.global_att2 = self.context(reduction, pool=True)

    def hybrid_forward(self, F, x, residual):
        return self._rounds(F, x, residual, self.global_att, self.global_att2)


@FUSIONS.register("locaforloca", "ResLocaforLocaChaFuse")
class ResLocaforLocaChaFuse(_TwoRoundFuse):
    """Two rounds of s(L1(.)), both 2·x·w + 2·res·(1 - w)."""

    def _add_contexts(self, reduction):
        self.local_att = self.context(reduction)
        self.local_att2 = self.context(reduction)

    def hybrid_forward(self, F, x, residual):
        return self._rounds(F, x, residual, self.local_att, self.local_att2)


# --- One context ----------------------------------------------------------------------------------


class _OneContextFuse(Fusion):
    """w = s(context(x + res)), bottleneck with r = 1; 2·x·w + 2·res·(1 - w)."""

    _pooled = False

    def __init__(self, channels=64, doubled=True, **kwargs):
        super().__init__(channels, **kwargs)
        self._select = selection(doubled)
        self.attention = self.context(1, pool=self._pooled, sigmoid=True)

    def hybrid_forward(self, F, x, residual):
        return self._select(F, x, residual, self.attention(x + residual))


@FUSIONS.register("glob", "ResGlobChaFuse")
class ResGlobChaFuse(_OneContextFuse):
    """w = s(G2(x + res)) with r = 1; 2·x·w + 2·res·(1 - w)."""

    _pooled = True


@FUSIONS.register("loca", "ResLocaChaFuse")
class ResLocaChaFuse(_OneContextFuse):
    """w = s(L2(x + res)) with r = 1; 2·x·w + 2·res·(1 - w)."""


@FUSIONS.register("se", "SEFuse")
class SEFuse(Fusion):
    """Squeeze-and-excitation (Hu et al., CVPR 2018): w = s(G2(x)); res + w·x."""

    def __init__(self, channels=64, reduction=4, **kwargs):
        super().__init__(channels, **kwargs)
        self.global_att = self.context(reduction, pool=True, sigmoid=True)

    def hybrid_forward(self, F, x, residual):
        return residual + F.broadcast_mul(x, self.global_att(x))


@FUSIONS.register("gau", "GAUFuse")
class GAUFuse(Fusion):
    """Global attention upsample (Li et al., BMVC 2018): w = s(G1(x)); w·res + x."""

    def __init__(self, channels=64, reduction=None, **kwargs):
        super().__init__(channels, **kwargs)
        self.global_att = self.context(reduction, pool=True, sigmoid=True)

    def hybrid_forward(self, F, x, residual):
        return F.broadcast_mul(residual, self.global_att(x)) + x


@FUSIONS.register("sk", "SKFuse")
class SKFuse(Fusion):
    """Selective kernel (Li et al., CVPR 2019): G2 of x + res gives 2C values, C // 4 hidden.

    A softmax over the two halves gives w (the first half) and 1 - w; 2·x·w + 2·res·(1 - w).
    """

    def __init__(self, channels=64, doubled=True, **kwargs):
        super().__init__(channels, **kwargs)
        self._select = selection(doubled)
        self.global_att = self.context(4, pool=True, out_channels=2 * channels)

    def hybrid_forward(self, F, x, residual):
        both = self.global_att(x + residual)
        # Not F.split, which MXNet's ONNX exporter writes wrongly.
        first = F.slice_axis(both, axis=1, begin=0, end=self._channels)
        second = F.slice_axis(both, axis=1, begin=self._channels, end=None)
        # The softmax of two values is the sigmoid of their difference.
        return self._select(F, x, residual, sigmoid(F, first - second))


AFF = ASKCFuse
IAFF = ResGlobLocaforGlobLocaChaFuse


def class_names():
    """The names of all fusion classes of this module, which openaff offers as its own."""
    return ["AFF", "IAFF", *(FUSIONS[key].__name__ for key in FUSIONS if _is_ours(FUSIONS[key]))]


def _is_ours(fusion):
    return getattr(fusion, "__module__", None) == __name__


def fusion_factory(fusion, reduction=None, doubled=None, defaults=None, **norm):
    """The builder ``f(channels) -> HybridBlock`` that a backbone calls once a block.

    Parameters
    ----------
    fusion : str or callable
        A registered key or class name, ``"module:Class"`` for what a module of one's own defines,
        a :class:`Fusion` class, or one's own ``f(channels) -> HybridBlock``, which is called with
        the channels alone.
    reduction : int, optional
        Reduction r asked for; only for a fusion that has one.
    doubled : bool, optional
        Whether the weighted sum is to have its factor 2; only for a fusion that has one.
    defaults : dict, optional
        The backbone's own values of such options: each for the fusions that have the option with
        another default than ``None``.
    norm
        ``norm_layer`` and ``norm_kwargs``, for :class:`Fusion` classes.

    Raises
    ------
    UserError
        An unknown name, module or class, an option that could have no effect, or a callable that
        returns something else than a HybridBlock.
    """
    asked = fusion
    if isinstance(fusion, str):
        fusion = import_object(fusion, "fusion") if ":" in fusion else FUSIONS[fusion]
    block = isinstance(fusion, type) and issubclass(fusion, nn.Block)
    if not callable(fusion) or isinstance(fusion, (type, nn.Block)) and not block:
        raise UserError(
            "fusion must be a name, module:Class, or a callable f(channels) -> HybridBlock, not "
            f"{asked!r}"
        )
    options, parameters = {}, {}
    if isinstance(fusion, type) and issubclass(fusion, Fusion):
        options, parameters = dict(norm), inspect.signature(fusion).parameters
    for name, value in (defaults or {}).items():
        if name in parameters and parameters[name].default is not None:
            options[name] = value
    for name, value in (("reduction", reduction), ("doubled", doubled)):
        if value is not None:
            if name not in parameters:
                raise UserError(
                    f"{name}={value!r} has no effect: {getattr(fusion, '__name__', fusion)} takes "
                    "none"
                )
            options[name] = value

    def build(channels):
        block = fusion(channels, **options)
        if not isinstance(block, nn.HybridBlock):
            raise UserError(
                f"the fusion callable must return a mxnet.gluon.HybridBlock, not {block!r}"
            )
        return block

    return build


def fusion_by_stage(fusion, first_fused_stage, stages):
    """``f(stage)``: the fusion factory of a stage, counted from 1; the sum before the first fused.

    ``first_fused_stage`` may be 1 to ``stages`` + 1, where no stage is fused.
    """
    if positive_int("first_fused_stage", first_fused_stage) > stages + 1:
        raise UserError(
            f"first_fused_stage must be 1 to {stages + 1} for {stages} stages, not "
            f"{first_fused_stage}"
        )
    return lambda stage: fusion if stage >= first_fused_stage else DirectAddFuse
