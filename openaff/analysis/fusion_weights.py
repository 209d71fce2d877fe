"""What a fusion decides: its weights."""

import mxnet as mx

from ..fusion import Fusion
from ..utils.errors import UserError


def fusion_weights(net, images):
    """The weights that every fusion of a network computes for a batch.

    Parameters
    ----------
    net : HybridBlock
        An initialised network.
    images : NDArray
        float32 (N, 3, H, W), normalised, on the network's device.

    Returns
    -------
    list of list of numpy.ndarray
        One list a fusion, in the order of computation, with one array (N, C, h, w) a round, of
        which iAFF and its like have two.  float32 in 0..1: the share of ``x``, the learned branch,
        in fusions that are weighted sums (h = w = 1 for a global context alone); else the weight
        that the fusion's equation names.

    Raises
    ------
    UserError
        The network has no fusion that computes weights.
    """
    symbol = net(mx.sym.var("data"))
    internals = symbol.get_internals()
    operations, fusions = symbol.attr_dict(), tuple(_fusion_prefixes(net))
    names = [
        name
        for name in internals.list_outputs()
        if name.startswith(fusions)
        and name.endswith("_output")
        and ("sigmoid" in name or operations.get(name[:-7], {}).get("act_type") == "sigmoid")
    ]
    if not names:
        raise UserError("this network has no fusion that computes weights")
    weights = mx.gluon.SymbolBlock(
        mx.sym.Group([internals[name] for name in names]),
        [mx.sym.var("data", dtype="float32")],
        params=net.collect_params(),
    )(images)
    rounds = {}
    for name, each in zip(names, weights if isinstance(weights, list) else [weights]):
        fusion = next(prefix for prefix in fusions if name.startswith(prefix))
        rounds.setdefault(fusion, []).append(each.asnumpy())
    return list(rounds.values())


def _fusion_prefixes(block):
    """What the names of each fusion's operations begin with."""
    for child in block._children.values():
        # The slot of our residual blocks may hold a fusion of one's own.
        if isinstance(child, Fusion) or child is getattr(block, "attention", None):
            yield child.prefix
        else:
            yield from _fusion_prefixes(child)
