"""Parameter files: every name and shape is checked before they are loaded."""

import pathlib

from ..utils.digests import Damaged
from ..utils.errors import UserError
from ..utils.params import read_arrays

OUTPUT_LAYERS = ("output", "fc")  # what networks call their last layer
SHOWN = 3  # names that a message lists of each kind of difference


def load_parameters(net, path, ctx=None, name=None):
    """Load what ``net.save_parameters`` wrote, after a check of every name and shape.

    Values of another type, such as the float16 of mixed training, are cast to the network's.  A
    ``features_only`` network also takes a classifier's file, and leaves its head.

    Parameters
    ----------
    net : Block
        Left as it is where anything is wrong.
    path : path-like
        A file of structural names (``features.1.weight``).
    ctx : mx.Context or list of mx.Context, optional
        Where to put the parameters of a network that is not initialised, by default the CPU.
    name : str, optional
        What messages call the network, by default its class.

    Raises
    ------
    UserError
        A file that is missing, no params file, truncated, exported, of Gluon's scope names, or
        another network's.
    """
    name = name or type(net).__name__
    arrays = read_parameters(path, name)
    expected = {key: param.shape for key, param in net._collect_params_with_prefix().items()}
    head = tuple(getattr(net, "head_names", ()))
    arrays = {key: value for key, value in arrays.items() if not key.startswith(head)}
    problem = None if set(expected) & set(arrays) else _other_form(arrays)
    problem = problem or differences(expected, arrays)
    if problem:
        raise _refusal(path, name, problem)
    # Nothing is left over but a head that the network does not have.
    net.load_parameters(str(path), ctx=ctx, cast_dtype=True, ignore_extra=bool(head))


def load_with_new_outputs(net, path, name=None):
    """Load a file into an initialised network that may have another number of outputs.

    Where the file has another number, or no output layer, the network's own keeps its values.

    Parameters
    ----------
    net : Block
        Left as it is where anything is wrong.
    path : path-like
        What ``net.save_parameters`` wrote, or an exported ``NAME-0000.params``.
    name : str, optional
        What messages call the network, by default its class.

    Returns
    -------
    list of str
        The names of the parameters that keep their values.

    Raises
    ------
    UserError
        Any other difference, with its names; see :func:`load_parameters`.
    """
    name = name or type(net).__name__
    arrays = {
        key.partition(":")[2] if key.startswith(("arg:", "aux:")) else key: value
        for key, value in read_parameters(path, name).items()
    }
    params = net._collect_params_with_prefix()
    outputs = [key for layer in OUTPUT_LAYERS for key in (f"{layer}.weight", f"{layer}.bias")]
    new = [key for key in outputs if key in params]
    if all(key in arrays and _fits(params[key].shape, arrays[key].shape) for key in new):
        new = []
    expected = {key: param.shape for key, param in params.items() if key not in new}
    arrays = {key: value for key, value in arrays.items() if key not in new}
    problem = None if set(expected) & set(arrays) else _other_form(arrays)
    problem = problem or differences(expected, arrays)
    if problem:
        raise _refusal(path, name, problem)
    for key, value in arrays.items():
        params[key].set_data(value.astype(params[key].dtype))
    return new


def read_parameters(path, name):
    """Name -> NDArray of a params file."""
    path = pathlib.Path(path)
    try:
        arrays = read_arrays(path)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; name a file that save_parameters wrote"
        ) from None
    except Damaged as error:
        raise _refusal(
            path,
            name,
            f"it is damaged ({path.stat().st_size:,} bytes): {error}; copy or download it again",
        ) from None
    if not isinstance(arrays, dict):
        raise _refusal(path, name, "its arrays have no names; save it with save_parameters")
    return arrays


def _refusal(path, name, problem):
    return UserError(f"{path} does not hold the parameters of {name}: {problem}")


def _other_form(arrays):
    """What is wrong with names that are not structural, or None."""
    if any(key.startswith(("arg:", "aux:")) for key in arrays):
        return (
            "it is an exported network's file (arg: and aux: names), no checkpoint; load it with "
            "its symbol file by mx.gluon.SymbolBlock.imports, or take what save_parameters wrote"
        )
    if not any("." in key for key in arrays):
        return (
            f"it has Gluon's scope names (such as {next(iter(arrays))}), as collect_params().save "
            "writes them; load it where it was written and save it with save_parameters"
        )
    return None


def differences(expected, arrays):
    """Missing, unexpected and reshaped parameters in words, or None.

    ``expected``: name -> shape, 0 where the network does not know a size yet.
    """
    found = {key: array.shape for key, array in arrays.items()}
    missing = [f"{key} {expected[key]}" for key in expected if key not in found]
    unexpected = [f"{key} {found[key]}" for key in found if key not in expected]
    reshaped = [
        f"{key} expected {expected[key]} found {found[key]}"
        for key in expected
        if key in found and not _fits(expected[key], found[key])
    ]
    parts = [
        "{} {} ({}{})".format(
            len(names), kind, ", ".join(names[:SHOWN]), ", ..." if len(names) > SHOWN else ""
        )
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", reshaped),
        )
        if names
    ]
    return "; ".join(parts) + "; check the model's name and options" if parts else None


def _fits(expected, found):
    return len(expected) == len(found) and all(a in (0, b) for a, b in zip(expected, found))


def count_outputs(arrays):
    """Rows of the output layer, or None where there is none of a known name."""
    names = (f"{layer}.bias" for layer in OUTPUT_LAYERS)
    return next((arrays[name].shape[0] for name in names if name in arrays), None)
