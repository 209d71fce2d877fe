"""From a network to MXNet's symbol JSON and params, which load without openaff."""

import json
import pathlib

import mxnet as mx
import numpy as np

from ..attention import plain_graph
from ..utils.arrays import save_arrays
from ..utils.errors import UserError
from ..utils.files import write_text
from ..utils.params import import_symbol

TOLERANCE = 1e-5  # largest difference allowed, relative to the largest output
OUTPUT = "logits"  # the symbol's last node


def relative_difference(actual, expected, shape):
    """Between two networks on random images of ``shape``, relative to the largest output.

    Where all expected outputs are 0, the difference is not relative.
    """
    images = mx.nd.array(np.random.default_rng(0).standard_normal(shape))
    actual, expected = actual(images).asnumpy(), expected(images).asnumpy()
    return float(np.abs(actual - expected).max() / (np.abs(expected).max() or 1))


def largest_difference(actual, expected, input_shape):
    """The largest :func:`relative_difference` for batches of 1 and of 3 images (C, H, W)."""
    shapes = [(size, *input_shape) for size in (1, 3)]
    return max(relative_difference(actual, expected, shape) for shape in shapes)


def check_difference(path, difference, tolerance):
    """Refuse an exported file whose outputs differ from the network's by more than allowed."""
    if not difference <= tolerance:  # nan is not, either
        raise UserError(
            f"the exported {path.name} differs from the network by {difference:.1e}, more than "
            f"{tolerance:.0e}"
        )


def export_symbol(net, folder, name, input_shape):
    """Write ``name-symbol.json`` and ``name-0000.params``, import them again and compare.

    Both load with plain MXNet.  Parameters carry their structural names
    (``arg:features.1.weight``), not Gluon's scope names with their counters: exporting twice gives
    the same symbol.

    Parameters
    ----------
    net : HybridBlock
        An initialised network.
    folder : path-like
        Made where it does not exist.
    name : str
        Stem of both files.
    input_shape : tuple of int
        Shape of one input, (3, H, W); the batch size stays free.

    Returns
    -------
    files : list of pathlib.Path
    difference : float
        Largest absolute difference between the network and the re-imported files on random
        input, relative to the largest output.

    Raises
    ------
    UserError
        The re-imported network differs by more than ``TOLERANCE``; the files are removed.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    symbol, params = folder / (name + "-symbol.json"), folder / (name + "-0000.params")
    structural = {param.name: key for key, param in net._collect_params_with_prefix().items()}
    with plain_graph():
        graph = json.loads(net(mx.sym.var("data")).tojson())
    for node in graph["nodes"]:
        node["name"] = structural.get(node["name"]) or _without_prefix(node["name"], net.prefix)
    graph["nodes"][graph["heads"][0][0]]["name"] = OUTPUT
    auxiliary = set(mx.sym.load_json(json.dumps(graph)).list_auxiliary_states())
    arrays = {
        ("aux:" if key in auxiliary else "arg:") + key: param.data(param.list_ctx()[0])
        for key, param in net._collect_params_with_prefix().items()
    }
    for node in graph["nodes"]:
        if node["op"] == "BatchNorm" and node["attrs"].get("fix_gamma") == "True":
            # MXNet takes such a gamma for 1, whatever is stored; converters take what is stored.
            gamma = "arg:" + graph["nodes"][node["inputs"][1][0]]["name"]
            arrays[gamma] = mx.nd.ones_like(arrays[gamma])
    save_arrays(params, arrays)
    write_text(symbol, json.dumps(graph, indent=2) + "\n")
    difference = _difference(net, symbol, params, input_shape)
    try:
        check_difference(symbol, difference, TOLERANCE)
    except UserError:
        symbol.unlink()
        params.unlink()
        raise
    return [symbol, params], difference


def _without_prefix(name, prefix):
    return name[len(prefix) :] if name.startswith(prefix) else name


def _difference(net, symbol, params, input_shape):
    return relative_difference(import_symbol(symbol, params), net, (2,) + tuple(input_shape))
