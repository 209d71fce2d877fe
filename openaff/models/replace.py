"""Fusions in residual networks of other libraries: their sums are replaced in place.

No block is copied.  While a residual block runs, its skip connection is an array (or a symbol)
that fuses with what is added to it, so that the block's own code does the rest.
"""

import fnmatch

import mxnet as mx
from mxnet.gluon import nn

from ..attention import check_norm
from ..fusion import fusion_factory
from ..utils.errors import UserError, one_line
from ..utils.outline import named_blocks

SLOT = "attention"  # the child of a block that holds its fusion, as in our own blocks


class _Skip:
    """An array or a symbol, ``plain``; ``branch + skip`` is ``fuse(branch, plain)``.

    Python asks the right operand first where its class is a subclass of the left one's, so both
    orders of the sum come here.
    """

    def __add__(self, branch):
        return self.fuse(branch, self.plain)

    __radd__ = __add__

    def __del__(self):
        pass  # the handle is that of ``plain``, which frees it


class _SkipArray(_Skip, mx.nd.NDArray):
    def __init__(self, plain, fuse):
        super().__init__(plain.handle, plain.writable)
        self.plain, self.fuse = plain, fuse


class _SkipSymbol(_Skip, mx.sym.Symbol):
    def __init__(self, plain, fuse):
        super().__init__(plain.handle)
        self.plain, self.fuse = plain, fuse


def _skip(plain, fuse):
    kind = _SkipSymbol if isinstance(plain, mx.sym.Symbol) else _SkipArray
    return kind(plain, fuse)


class _Fused:
    """Mixed into the class of a residual block: the fusion takes the place of its sum."""

    def hybrid_forward(self, F, x, *more, **params):
        fuse, shortcut = getattr(self, SLOT), self.downsample
        if shortcut is None:
            return super().hybrid_forward(F, _skip(x, fuse), *more, **params)
        attributes = vars(self)  # past Gluon, which would take the function for a new child
        attributes["downsample"] = lambda value: _skip(shortcut(value), fuse)
        try:
            return super().hybrid_forward(F, x, *more, **params)
        finally:
            attributes["downsample"] = shortcut


def replace_sums(
    net,
    fusion="aff",
    blocks="*",
    reduction=None,
    doubled=None,
    norm_layer=nn.BatchNorm,
    norm_kwargs=None,
):
    """Replace the sums of a residual network's blocks by fusions, in place.

    For networks of gluoncv and of Gluon's model zoo; networks of openaff take ``fusion=``.  A
    residual block is one that has an attribute ``downsample``, its shortcut or ``None``, and adds
    one branch to it.  The fusion becomes the block's child ``attention``.  All other parameters
    keep their structural names: a file of the original network loads with
    ``net.load_parameters(path, allow_missing=True)``.

    Parameters
    ----------
    net : mxnet.gluon.HybridBlock
        The network, float (N, 3, H, W) -> outputs.  If its parameters have values already, such as
        pretrained ones, they stay, and those of the fusions are initialised.
    fusion : str or callable
        See :func:`~openaff.fusion.fusion_factory`.
    blocks : str
        Shell-style pattern of the structural names of the blocks to change: ``"layer[34].*"`` are
        the last two stages of ``resnet50_v1b``, where the published networks have fusions.
    reduction : int, optional
        Reduction r of the fusion, by default its class's.
    doubled : bool, optional
        Whether the weighted sum has the factor 2, by default as its class.
    norm_layer, norm_kwargs
        The normalisation layer of the fusions, and its keyword arguments.

    Returns
    -------
    mxnet.gluon.HybridBlock
        ``net``.

    Raises
    ------
    UserError
        A network without such blocks, or with fusions already; a pattern that fits none; what
        :func:`~openaff.fusion.fusion_factory` refuses.  The network is then as it was.

    Examples
    --------
    >>> import openaff
    >>> from mxnet.gluon.model_zoo import vision
    >>> net = openaff.replace_sums(vision.resnet18_v1(), "iaff")
    """
    check_norm(norm_layer, norm_kwargs)
    build = fusion_factory(
        fusion, reduction, doubled, norm_layer=norm_layer, norm_kwargs=norm_kwargs
    )
    chosen = _residual_blocks(net, blocks)
    kinds = {block: type(block) for block in chosen}
    try:
        made = {}
        for block, channels in _channels(net, chosen).items():
            with block.name_scope():
                made[block] = build(channels)
        for block, new in made.items():
            _like(new, block)
    except BaseException:
        for block, kind in kinds.items():
            block.__class__ = kind
            vars(block).pop(SLOT, None)
        raise
    for block, new in made.items():
        del vars(block)[SLOT]
        setattr(block, SLOT, new)
    # Graphs of an earlier call have the sums.
    net.apply(lambda each: each._clear_cached_op() if isinstance(each, nn.HybridBlock) else None)
    return net


def _residual_blocks(net, pattern):
    """The residual blocks whose structural names fit."""
    if not isinstance(net, nn.HybridBlock):
        raise UserError(f"sums are replaced in a HybridBlock, not in {type(net).__name__}")
    found = {
        name: block
        for name, block in named_blocks(net).items()
        if hasattr(block, "downsample") and isinstance(block, nn.HybridBlock)
    }
    if not found:
        raise UserError(
            f"{type(net).__name__} has no residual block whose sum can be replaced: those of "
            "gluoncv's ResNet, ResNeXt, SENet, ResNeSt and of Gluon's ResNet can"
        )
    if any(isinstance(block, _Fused) or hasattr(block, SLOT) for block in found.values()):
        raise UserError(f"{type(net).__name__} has fusions already: take a new network")
    chosen = [block for name, block in found.items() if fnmatch.fnmatchcase(name, pattern)]
    if not chosen:
        raise UserError(
            f"no residual block fits {pattern!r}: the names are {', '.join(list(found)[:3])}, ..., "
            f"{list(found)[-1]}"
        )
    return chosen


def _channels(net, blocks):
    """Block -> channels of its branch; the blocks are of their fused classes then."""
    branches = {block: [] for block in blocks}
    for block in blocks:
        block.__class__ = type(f"Fused{type(block).__name__}", (_Fused, type(block)), {})

        def record(branch, residual, seen=branches[block]):
            seen.append(branch)
            return branch + residual

        vars(block)[SLOT] = record
    name = type(net).__name__
    try:
        net(mx.sym.var("data"))
    except Exception as error:  # of the network's own code
        raise UserError(f"{name} cannot be traced with a symbol: {one_line(error)}") from None
    for block, seen in branches.items():
        if len(seen) != 1:
            kind = type(block).__name__[len("Fused") :]
            raise UserError(
                f"{name} has blocks {kind} that add {len(seen)} branches to their shortcut: sums "
                "can be replaced where it is one"
            )
    group = mx.sym.Group([branch for (branch,) in branches.values()])
    _, shapes, _ = group.infer_shape_partial(data=(1, 3, 224, 224))  # any size has these channels
    return {block: shape[1] for block, shape in zip(branches, shapes)}


def _like(new, block):
    """Give ``new`` the type and, where the block has values, the devices of its weights."""
    weight = next(iter(block.collect_params(".*weight").values()))  # batch norms stay float32
    new.cast(weight.dtype)
    if weight._data is not None or weight._deferred_init:
        new.initialize(mx.init.Xavier(), ctx=weight.list_ctx())
