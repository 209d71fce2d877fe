"""The blocks of a network: by name, what they give, and the one that the head looks at."""

import contextlib

import mxnet as mx
from mxnet.gluon import HybridBlock, nn

from ...utils.errors import UserError, suggest
from ...utils.outline import named_blocks

NO_BLOCKS = "this network has no blocks inside (an export's has none): take the network of a run"


def find_layer(net, layer):
    """``(name, block)`` of a block of the network, given by its name or itself.

    Raises
    ------
    UserError
        The network has no such block.
    """
    named = named_blocks(net)
    for name, block in named.items():
        if block is layer or name == layer:
            return name, block
    if not named:
        raise UserError(NO_BLOCKS)
    if isinstance(layer, str):
        raise UserError(
            f"the network has no block {layer!r}{suggest(layer, named)} "
            "(names are those of saved parameters, such as features.4)"
        )
    raise UserError(f"{type(layer).__name__} is no block of this network")


def default_layer(net, images):
    """``(name, block)`` whose output is the last map that the head sees.

    Of a pyramid that is its largest fused map; of another network, what goes into the last block
    that leaves one position of several: the global pooling, or the flattening.  So it is behind
    a final norm and ReLU where there is one.

    Raises
    ------
    UserError
        The network has no such block, or the map is made between blocks.
    """
    if hasattr(net, "top_down"):
        return find_layer(net, net.feature_info[0].name)
    named, made, last = named_blocks(net), [], None
    if not named:
        raise UserError(NO_BLOCKS)

    def note(name, block):
        def hook(_, inputs, output):
            nonlocal last
            if isinstance(output, mx.nd.NDArray):
                made.append((output, name))
                layer = isinstance(block, nn.Dense) or not block._children  # no container
                if layer and _positions(inputs[0]) > 1 == _positions(output):
                    last = inputs[0]

        return hook

    with unhybridized(net), contextlib.ExitStack() as hooks:
        for name, block in named.items():
            hooks.enter_context(block.register_forward_hook(note(name, block)))
        net(images[:1])
    for output, name in made:
        if output is last:
            return name, named[name]
    raise UserError(
        "cannot tell which map the head of this network sees: name a block "
        "(names are those of saved parameters, such as features.4)"
    )


def _positions(array):
    """H * W of a map (N, C, H, W), 1 of a vector, 0 of something else."""
    shape = getattr(array, "shape", ())
    return shape[2] * shape[3] if len(shape) == 4 else int(len(shape) == 2)


@contextlib.contextmanager
def unhybridized(net):
    """Within this context every block runs by itself, so that hooks see it.

    Afterwards the network is as hybridised as before, with the graphs that it had compiled.
    """
    blocks = [net, *named_blocks(net).values()]
    active = [(block, block._active) for block in blocks if isinstance(block, HybridBlock)]
    for block, _ in active:
        block._active = False
    try:
        yield
    finally:
        for block, was in active:
            block._active = was


def run_to_layer(net, layer, images, record):
    """The network's outputs, and the layer's output within them.

    Parameters
    ----------
    net : Block
    layer : (str, Block)
        See :func:`find_layer`.
    images : NDArray
        float (N, 3, H, W).
    record : bool
        Record for a gradient with respect to the layer's output; nothing before it is recorded.

    Raises
    ------
    UserError
        The layer does not give a map, or is used more often than once.
    """
    name, block = layer
    seen = []

    def hook(_, inputs, output):
        if record and not seen and isinstance(output, mx.nd.NDArray):
            output.attach_grad()  # from here on: what led to it is forgotten
        seen.append(output)

    scope = mx.autograd.record(train_mode=False) if record else mx.autograd.pause()
    with unhybridized(net), block.register_forward_hook(hook), scope:
        outputs = net(images)
    if len(seen) != 1:
        raise UserError(f"the block {name} is used {len(seen)} times for one image: name another")
    if not isinstance(seen[0], mx.nd.NDArray) or seen[0].ndim != 4:
        raise UserError(f"the block {name} gives no map (N, C, H, W): name another")
    return outputs, seen[0]
