"""From PyTorch to Gluon: weights of the networks, and of the ported blocks, come home."""

import inspect
import pathlib
import pickle

import mxnet as mx
import numpy as np

from ...attention import MSCAM
from ...fusion import FUSIONS
from ...models import create_model
from ...models.parameters import differences
from ...utils.errors import UserError, one_line
from ...utils.files import refuse_special
from ...utils.json_files import parse_json
from .weights import COUNTER, import_torch, torch_name

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # keys that hold the state itself
MOST_WRAPPERS = 5  # one in the other; a dictionary may hold itself
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile
BLOCKS = {"MSCAM": MSCAM, "MS_CAM": MSCAM, "iAFF": FUSIONS["IAFF"]}  # beside the fusions' names
FACTS = {"model?": str, "options?": {str: object}}  # what a file may say of its network
SAFE_LOAD = (2, 6)  # before it, weights_only could be made to run code (CVE-2025-32434)


def read_state(path):
    """The tensors of a state dict, and what the file says of its network.

    Parameters
    ----------
    path : path-like
        ``.safetensors``, or what ``torch.save`` wrote: ``.pt`` or ``.pth``, of which only tensors
        are loaded, never code.  The state may stand under ``state_dict``, ``model_state_dict``,
        ``model`` or ``net``, and all names may begin with ``module.`` or ``_orig_mod.``.

    Returns
    -------
    state : dict of str to numpy.ndarray
        float32, without counters of batches.
    facts : dict
        ``model`` and ``options``, or empty.

    Raises
    ------
    UserError
        The file is missing, damaged, or no state dict.
    """
    torch = import_torch()
    path = pathlib.Path(path)
    refuse_special(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.suffix == ".safetensors":
        state, facts = _read_safetensors(path)
    elif path.suffix in (".pt", ".pth"):
        state, facts = _read_pickle(torch, path), {}
    else:
        raise UserError(f"{path}: a state dict is a .safetensors, .pt or .pth file")
    for name, value in state.items():
        if not isinstance(name, str):
            raise UserError(f"{path} is no state dict: the name {name!r} is no string")
        if not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            raise UserError(f"{path} is no state dict: {name!r} is a {kind}, not a tensor")
        state[name] = _real(torch, path, name, value)
    if not state:
        raise UserError(f"{path} holds no tensors")
    while True:  # torch.compile(DataParallel(net)) puts one before the other
        shared = [each for each in PREFIXES if all(name.startswith(each) for name in state)]
        if not shared:
            break
        state = {name[len(shared[0]) :]: value for name, value in state.items()}
    return {
        name: value for name, value in state.items() if name.rpartition(".")[2] != COUNTER
    }, facts


def _real(torch, path, name, value):
    """A tensor as a float32 numpy.ndarray."""
    try:
        if value.layout == torch.strided and not value.is_complex():
            return value.detach().to(torch.float32).resolve_neg().numpy()
    except (RuntimeError, TypeError):  # of another device, quantised, nested, of 4-bit numbers
        pass
    raise UserError(f"{path}: {name!r} is no dense tensor of real numbers: save it as one")


def _read_safetensors(path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            facts = parse_json((file.metadata() or {}).get("openaff", "{}"), FACTS)
            return {name: file.get_tensor(name) for name in file.keys()}, facts
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or no safetensors file: {one_line(error)}") from None


def _read_pickle(torch, path):
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    if version < SAFE_LOAD:
        raise UserError(
            f"{path}: torch {torch.__version__} may run code from such a file: take torch 2.6 or "
            "newer, or a .safetensors file"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than tensors, or is damaged: save net.state_dict() alone"
        ) from None
    except Exception as error:  # its readers of several formats raise nearly anything
        raise UserError(f"{path} is damaged or no file of torch.save: {one_line(error)}") from None
    for _ in range(MOST_WRAPPERS):
        if not isinstance(state, dict):
            break
        inner = next((state[key] for key in WRAPPERS if isinstance(state.get(key), dict)), None)
        if inner is None:
            return state
        state = inner
    raise UserError(f"{path} holds a {type(state).__name__}, not a state dict")


def import_state(path, model=None, options=None, shared_global=False):
    """The Gluon network or block with the weights of a state dict from PyTorch.

    Parameters
    ----------
    path : path-like
        See :func:`read_state`.
    model : str, optional
        A model id, or a block: ``AFF``, ``iAFF``, ``MS_CAM``, or another fusion's name.  By default
        what the file says, if openaff wrote it.
    options : dict, optional
        What it is built with.  By default the number of classes, and channels and reduction of a
        block, follow from the file.
    shared_global : bool
        ``global_att`` also stands for ``global_att2``: for ports of iAFF that call the first one in
        both rounds.

    Returns
    -------
    model : str
        What it is.
    net : HybridBlock
        On the CPU.

    Raises
    ------
    UserError
        The file is missing, damaged or of another network, or ``shared_global`` has no effect.
    """
    state, facts = read_state(path)
    options = dict(options or {})
    if model is None:
        model = facts.get("model")
        if model is None:
            raise UserError(f"{path} does not say which network it is of: name it, --model")
    if model == facts.get("model"):
        options = {**facts.get("options", {}), **options}
    net = _build(path, model, options, state)
    expected = {torch_name(name): each for name, each in net._collect_params_with_prefix().items()}
    if shared_global:
        _share_global(path, model, expected, state)
    shapes = {name: param.shape for name, param in expected.items()}
    problem = differences(shapes, state)
    if problem:
        raise UserError(f"{path} does not hold the weights of {model}: {problem}")
    for name, param in expected.items():
        param.set_data(mx.nd.array(state[name]))
    return model, net


def _build(path, model, options, state):
    if model in FUSIONS or model in BLOCKS:
        block = BLOCKS.get(model) or FUSIONS[model]
        known = inspect.signature(block).parameters
        found = _form_of_block(state)
        options = {**{key: value for key, value in found.items() if key in known}, **options}
        if "channels" not in options:
            raise UserError(
                f"{path} does not tell the channels of {model}: --option channels=64, or the file "
                "is of another block"
            )
        try:
            net = block(**options)
            net.initialize()  # norm_kwargs may name initialisers
            return net
        except UserError:
            raise
        except Exception as error:  # whatever Gluon and MXNet raise
            raise UserError(f"{model}: {one_line(error)}") from None
    outputs = (state[name] for name in ("output.bias", "fc.bias") if name in state)
    for name in ("name", "pretrained"):
        if name in options:
            raise UserError(f"{path}: the option {name} has no effect: {model} settles it")
    options.setdefault("num_classes", next((bias.size for bias in outputs), None))
    net = create_model(model, **options)
    net.initialize()
    return net


def _form_of_block(state):
    """Channels and reduction of a block, from the first convolution of its first context."""
    for context in ("local_att.", "global_att.", "attention."):
        kernels = {name: each for name, each in state.items() if each.ndim == 4 and each.size}
        names = sorted(name for name in kernels if name.startswith(context))
        if names:
            hidden, channels = kernels[names[0]].shape[:2]
            if hidden > channels and len(names) > 1:  # of another block
                return {"channels": channels}
            plain = len(names) == 1 and hidden >= channels
            return {"channels": channels, "reduction": None if plain else channels // hidden}
    last = state.get("fuse.1.weight")
    return {} if last is None else {"channels": len(last)}


def _share_global(path, model, expected, state):
    copied = 0
    for name in expected:
        if "global_att2." in name:
            source = name.replace("global_att2.", "global_att.")
            if source in state:
                copied += name not in state or not np.array_equal(state[name], state[source])
                state[name] = state[source]
    if not copied:
        raise UserError(
            f"--shared-global has no effect: {model} has no global_att2, or {path} has the values "
            "of global_att there already"
        )
