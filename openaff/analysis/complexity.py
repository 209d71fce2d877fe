"""What a network costs: parameters, multiply-adds, activations."""

import json
import math
import re
from collections import defaultdict
from dataclasses import astuple, dataclass
from typing import Dict

import mxnet as mx

from ..utils.errors import UserError, first_line, positive_int

# Each output of the first two is one filter's product with a patch of the input; the last, the
# transposed convolution, multiplies each input with one filter.
_LAYERS = ("Convolution", "FullyConnected", "Deconvolution")


@dataclass
class Cost:
    """Exact counts, of a network or of a stage; see :func:`summarize`."""

    parameters: int = 0  # running statistics included
    trainable_parameters: int = 0
    multiply_adds: int = 0  # for one image
    activations: int = 0  # for one image


@dataclass
class Summary:
    """A network's :class:`Cost`, in total and by stage, in the network's order."""

    total: Cost
    stages: Dict[str, Cost]


def count_parameters(net):
    """``(trainable, total)`` numbers of a network; total includes the running statistics.

    Raises
    ------
    UserError
        A shape is not known before data has gone through the network.
    """
    params = net.collect_params().values()
    sizes = [(_size(param.name, param.shape), param.grad_req != "null") for param in params]
    return sum(size for size, trainable in sizes if trainable), sum(size for size, _ in sizes)


def summarize(net, input_shape=(3, 32, 32)):
    """Count what a network has and does for one image, from shapes alone.

    Multiply-adds and activations (sizes of the outputs) are those of convolutions, transposed
    ones too, and dense layers, as in Designing Network Design Spaces (Radosavovic et al.,
    CVPR 2020), https://arxiv.org/abs/2003.13678.  Not counted: biases, batch norms, activation
    functions, pooling, and a fusion's element-wise arithmetic.

    Parameters
    ----------
    net : HybridBlock
        Initialised or not, hybridised or not; it stays as it is.
    input_shape : tuple of int
        Shape of one input, (3, H, W).

    Returns
    -------
    Summary
        A stage is the first part of the parameters' structural names (``layer3``, ``fc``), with
        its index under ``features`` (``features.4``).  A shared parameter counts once, where it
        comes first; its multiply-adds count at every use.

    Raises
    ------
    UserError
        An input that the network cannot take, or that leaves a parameter's shape open.
    """
    params = net.collect_params()
    names = {}
    for name, param in net._collect_params_with_prefix().items():
        names.setdefault(param.name, name)
    nodes, shapes = _trace(net, params, input_shape)
    inferred = {nodes[index]["name"]: shape for (index, _), shape in shapes.items()}
    stages = defaultdict(Cost)
    for param in params.values():
        cost = stages[_stage(names.get(param.name, param.name))]
        size = _size(param.name, inferred.get(param.name, param.shape))
        cost.parameters += size
        if param.grad_req != "null":
            cost.trainable_parameters += size
    for index, node in enumerate(nodes):
        if node["op"] in _LAYERS:
            data, weight = (tuple(source[:2]) for source in node["inputs"][:2])
            output = (index, 0)
            # A computed weight is no parameter, a part of one is.
            name = names.get(_whole(nodes, weight[0])["name"], "computed weights")
            uses = math.prod(shapes[data if node["op"] == "Deconvolution" else output])
            cost = stages[_stage(name)]
            cost.multiply_adds += uses * math.prod(shapes[weight][1:])
            cost.activations += math.prod(shapes[output])
    total = Cost(*map(sum, zip(*map(astuple, stages.values()))))
    return Summary(total, dict(stages))


def _trace(net, params, input_shape):
    """The graph's nodes, and (node, output) -> shape for a batch of one."""
    for size in input_shape:
        positive_int("a size of input_shape", size)
    outputs = net(mx.sym.var("data"))
    internals = mx.sym.Group(list(outputs)).get_internals()
    # A traced variable has the shape that its parameter had when first traced: say today's.
    inputs = set(internals.list_inputs())
    known = {name: param.shape for name, param in params.items() if name in inputs and param.shape}
    try:
        _, shapes, _ = internals.infer_shape_partial(data=(1,) + tuple(input_shape), **known)
    except mx.base.MXNetError as error:
        # The first line, without the place in MXNet's sources.
        reason = first_line(str(error).split("MXNetError: ")[-1])
        reason = re.sub(r"\[[\d:]+\] \S+: ", "", reason)
        raise UserError(
            "this network cannot take an input of shape {}: {}".format(
                "x".join(map(str, input_shape)), reason
            )
        ) from None
    for name, shape in zip(internals.list_outputs(), shapes):
        _size(name, shape)  # none is left open
    # Names are not unique where a block is called twice; the heads are.
    graph = json.loads(internals.tojson())
    return graph["nodes"], {tuple(head[:2]): shape for head, shape in zip(graph["heads"], shapes)}


def _whole(nodes, index):
    """The node that a node is a slice of."""
    while nodes[index]["op"] == "slice_axis":
        index = nodes[index]["inputs"][0][0]
    return nodes[index]


def _size(name, shape):
    if not shape or 0 in shape:
        raise UserError(f"the shape of {name} is not known before data has gone through")
    return math.prod(shape)


def _stage(name):
    """``features.<k>`` or the first part of a structural name."""
    return ".".join(name.split(".")[: 2 if name.startswith("features.") else 1])
