"""Weights in the package: small networks that we trained, ready to use.

Each has a key, and two files in ``weights/``: ``KEY.params``, and ``KEY.json``, its record.
"""

import fnmatch
import pathlib
import re

from ..utils.descriptions import read_weights
from ..utils.errors import UserError, suggest
from ..utils.files import sha256
from .parameters import load_parameters

FOLDER = pathlib.Path(__file__).with_name("weights")
LARGEST = 10**6  # bytes of a file of parameters
_KEY = re.compile(r"[a-z0-9][a-z0-9._-]*")


def weight_files(key):
    """The files of a key: parameters and record."""
    if not _KEY.fullmatch(key):
        raise UserError(
            f"the key {key!r} must be lower-case letters, digits, '.', '-' and '_', the first a "
            "letter or a digit"
        )
    return FOLDER / f"{key}.params", FOLDER / f"{key}.json"


def list_pretrained(pattern="*"):
    """Sorted keys of the weights in the package that match a shell-style ``pattern``.

    ``openaff.create_model(name, pretrained=KEY)`` loads them; see :func:`pretrained_info`.
    """
    return sorted(fnmatch.filter((path.stem for path in FOLDER.glob("*.json")), pattern))


def pretrained_info(key):
    """What one must know to use the weights of a key.

    Returns
    -------
    dict
        ``model`` and ``options``, the network; ``outputs``, their number; ``task``, ``dataset``,
        ``labels``, the granularity in words, ``class_names``; ``input_shape``, (3, H, W), ``mean``
        and ``std`` of pixel values in [0, 1], ``crop_ratio`` and ``short_side``, or None; ``loss``,
        its options; ``score``, what was measured, on which split, by which protocol, after which
        epoch, with the seed and the commit; ``sha256`` of the parameters.

    Raises
    ------
    UserError
        An unknown key, or a damaged record.
    """
    keys = list_pretrained()
    if key not in keys:
        known = "openaff.list_pretrained() lists them" if keys else "the package has none"
        raise UserError(f"the package has no weights {key!r}{suggest(key, keys)}; {known}")
    return read_weights(weight_files(key)[1])


def settle_options(key, name, fusion, num_classes, options, defaults):
    """The number of outputs and the options of a network that gets the weights of a key.

    Parameters
    ----------
    key : str
        See :func:`list_pretrained`.
    name, fusion, num_classes, options
        What :func:`~openaff.create_model` was called with.
    defaults : dict
        Option -> default of the network's family.

    Raises
    ------
    UserError
        They are of another network.
    """
    info = pretrained_info(key)
    if name != info["model"] or fusion is not None:
        asked = name if fusion is None else f"{name} with fusion={fusion!r}"
        raise UserError(
            f"pretrained={key!r} is for {info['model']}, not for {asked}: write "
            f"create_model({info['model']!r}, pretrained={key!r})"
        )
    if num_classes not in (None, info["outputs"]):
        raise UserError(
            f"pretrained={key!r} has {info['outputs']} outputs, not {num_classes}: leave "
            f"num_classes out; for other classes train with start_from={key}"
        )
    for option, value in options.items():
        own = info["options"].get(option, defaults[option])
        if option != "features_only" and value != own:
            raise UserError(
                f"pretrained={key!r} has {option}={own!r}, not {value!r}: leave {option} out"
            )
    return info["outputs"], {**info["options"], **options}


def load_pretrained(net, key):
    """Load the weights of a key into its network, on the CPU; see :func:`checked_weights`."""
    load_parameters(net, checked_weights(key), name=key)


def checked_weights(key):
    """The file of a key's parameters.

    Raises
    ------
    UserError
        The file is missing, or is not the one that the record describes.
    """
    path, record = weight_files(key)
    try:
        digest = sha256(path)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; install openaff anew, or take the file from "
            "its repository"
        ) from None
    if digest != pretrained_info(key)["sha256"]:
        raise UserError(
            f"{path} is damaged: its SHA-256 is not the one in {record.name}; install openaff "
            "anew, or take the file from its repository"
        )
    return path
