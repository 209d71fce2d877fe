"""From a Gluon network to PyTorch: names, weights, and a check that both give the same."""

import json
import pathlib
import shutil

import mxnet as mx

from ...utils.errors import UserError, one_line
from ...utils.files import atomic
from ...utils.packaged import pip_install
from ..symbol import TOLERANCE, check_difference, largest_difference

SOURCE = pathlib.Path(__file__).with_name("network.py")  # what an export copies
RENAMED = {"gamma": "weight", "beta": "bias"}  # of batch norms; all other names are the same
COUNTER = "num_batches_tracked"  # that PyTorch's batch norms have, and MXNet's have not


def import_torch():
    """The module ``torch``.

    Raises
    ------
    UserError
        PyTorch or safetensors is missing.
    """
    try:
        import safetensors.torch  # noqa: F401
        import torch
    except ImportError as error:
        raise UserError(
            f"PyTorch is needed for this ({one_line(error)}): {pip_install('torch')}"
        ) from None
    return torch


def torch_name(name):
    """The name in PyTorch of a parameter, given its structural name in Gluon."""
    layer, _, last = name.rpartition(".")
    return f"{layer}.{RENAMED[last]}" if last in RENAMED else name


def torch_state(net):
    """Name -> tensor: what the network in PyTorch has of ``net``'s parameters, float32."""
    torch = import_torch()
    state = {}
    for name, param in net._collect_params_with_prefix().items():
        value = param._reduce().astype("float32").asnumpy()
        state[torch_name(name)] = torch.from_numpy(value)
        if name.endswith("running_var"):
            state[name.replace("running_var", COUNTER)] = torch.tensor(0)
    return state


def torch_network(net, model, options):
    """The network in PyTorch with the parameters of ``net``, and what its ``create`` made it of.

    Parameters
    ----------
    net : HybridBlock
        An initialised network.
    model : str
        Its model id.
    options : dict
        What it was built with.

    Returns
    -------
    network : torch.nn.Module
    options : dict
        With ``num_classes``.

    Raises
    ------
    UserError
        PyTorch is missing, or ``network.py`` has no such network.
    """
    import_torch()
    from . import network

    options = {key: value for key, value in options.items() if value is not None}
    if hasattr(net, "options"):
        options["num_classes"] = net.options.num_classes
    try:
        made = network.create(model, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{model} cannot be built in PyTorch: {one_line(error)}; network.py has openaff's own "
            "networks and fusions alone"
        ) from None
    made.load_state_dict(torch_state(net))
    return made, options


def write_weights(path, network, model, options):
    """Write a network's weights, and which network they are of, as a ``.safetensors`` file.

    Whole or not at all; ``load`` of ``network.py`` reads it.
    """
    from safetensors.torch import save

    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    facts = json.dumps({"model": model, "options": options}, sort_keys=True)
    with atomic(path) as temporary:
        # One entry alone: several would be in any order, and the files would differ.
        temporary.write_bytes(save(state, metadata={"openaff": facts}))


def export_pytorch(net, folder, model, options, input_shape):
    """Write ``MODEL.safetensors`` and ``network.py``, load them and compare.

    Parameters
    ----------
    net : HybridBlock
        An initialised network.
    folder : pathlib.Path
        Where to.
    model, options
        Its model id, and what it was built with.
    input_shape : tuple of int
        (3, H, W).

    Returns
    -------
    float
        Largest absolute difference on random input, relative to the largest output.

    Raises
    ------
    UserError
        PyTorch is missing, it has no such network, or it gives something else.
    """
    made, options = torch_network(net, model, options)
    path = folder / f"{model}.safetensors"
    write_weights(path, made, model, options)
    shutil.copyfile(SOURCE, folder / SOURCE.name)
    difference = largest_difference(runner(path), net, input_shape)
    check_difference(path, difference, TOLERANCE)
    return difference


def runner(path):
    """The network of a ``.safetensors`` file, as a function from NDArray to NDArray.

    Raises
    ------
    UserError
        PyTorch is missing, or the file is missing, damaged or of another network.
    """
    torch = import_torch()
    from .network import load

    try:
        net = load(path)
    except ValueError as error:
        raise UserError(one_line(error)) from None

    def run(images):
        with torch.no_grad():
            return mx.nd.array(net(torch.from_numpy(images.asnumpy())).numpy())

    return run
