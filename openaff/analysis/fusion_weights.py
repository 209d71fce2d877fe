"""What a fusion decides: its weights, as pictures."""

import mxnet as mx

from ..fusion import Fusion
from ..utils.errors import UserError
from ..utils.files import atomic


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
    list of numpy.ndarray
        One array (N, C, h, w) a fusion, float32 in 0..1, in the order of computation: the share
        of ``x``, the learned branch, in fusions that are weighted sums (h = w = 1 for a global
        context alone); else the weight that the fusion's equation names.

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
    return [each.asnumpy() for each in (weights if isinstance(weights, list) else [weights])]


def _fusion_prefixes(block):
    """What the names of each fusion's operations begin with."""
    for child in block._children.values():
        # The slot of our residual blocks may hold a fusion of one's own.
        if isinstance(child, Fusion) or child is getattr(block, "attention", None):
            yield child.prefix
        else:
            yield from _fusion_prefixes(child)


def draw_fusion_weights(path, pictures, weights, titles):
    """A row an image: the image, then the mean over channels of each fusion's weights.

    Parameters
    ----------
    path : path-like
        PNG file.
    pictures : array
        uint8 (N, H, W, 3).
    weights : list of arrays
        See :func:`fusion_weights`.
    titles : list of str
        One an image.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = len(pictures), 1 + len(weights)
    figure = Figure(figsize=(1.6 * columns, 1.8 * rows), constrained_layout=True)
    FigureCanvasAgg(figure)  # no backend is chosen: in a notebook others' figures still show
    axes = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        axes[row, 0].imshow(pictures[row])
        axes[row, 0].set_title(titles[row], fontsize="small")
        for column, weight in enumerate(weights, start=1):
            # The same scale everywhere, so that maps of different fusions can be compared.
            shown = axes[row, column].imshow(
                weight[row].mean(axis=0), vmin=0, vmax=1, cmap="coolwarm"
            )
            if row == 0:
                shape = "x".join(map(str, weight.shape[1:]))
                axes[0, column].set_title(f"fusion {column}\n{shape}", fontsize="small")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    bar = figure.colorbar(shown, ax=axes, shrink=0.7)
    bar.set_label("weight of the learned branch")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110)
