"""What finished runs, exports and weights in the package say of themselves, as JSON."""

import pathlib

from .digests import EXPORT, RESULT
from .errors import UserError
from .json_files import WrongJSON, check_kind, read_json
from .labels import check_names

EXPORT_FORMAT = "openaff export 1"
WEIGHTS_FORMAT = "openaff weights 1"
LARGEST_SIDE = 1 << 15  # pixels
SMALLEST_RATIO = 0.001  # of a crop
_NETWORK = {
    "model": str,
    "options": {str: object},
    "input_shape": [int] * 3,
    "mean": [float] * 3,
    "std": [float] * 3,
}
_RESULT = {
    **_NETWORK,
    "dataset": str,
    "labels": str,
    "split": str,
    "protocol": str,
    "seed": int,
    "commit": object,
    "best_epoch": int,
    "best_selection": str,
    "classes?": int,
    "headline?": str,
    "files?": {str: str},
}
_EXPORT = {
    **_NETWORK,
    "task?": str,
    "dataset": (None, str),
    "labels": (None, str),
    "crop_ratio?": (None, float),
    "short_side?": (None, int),
    "score?": (None, {str: object}),
    "loss?": (None, {str: object}),
    "output": {"classes": int},
    "onnx_dtype?": (None, str),
    "files": {str: str},
}


_WEIGHTS = {
    **_NETWORK,
    "format": str,
    "outputs": int,
    "task": str,
    "dataset": str,
    "labels": str,
    "class_names": [str],
    "crop_ratio": (None, float),
    "short_side": (None, int),
    "score": {str: object},
    "loss": (None, {str: object}),
    "sha256": str,
}


def read_result(folder):
    """What a finished run says of itself.

    Raises
    ------
    UserError
        The run has not finished, or its ``result.json`` is damaged.
    """
    folder = pathlib.Path(folder)
    if not (folder / RESULT).exists():
        raise UserError(f"{folder} is not the folder of a finished run: it has no {RESULT}")
    try:
        result = read_json(folder / RESULT, _RESULT)
        # Files of the first edition, which had classification alone, do not name the figure.
        headline = result.get("headline", "accuracy")
        check_kind(result, {f"{which}_{headline}": float for which in ("best", "last")})
        _check_input(result)
    except (OSError, WrongJSON) as error:
        raise UserError(f"{folder / RESULT} is damaged: {error}") from None
    return result


def read_description(folder):
    """What an export folder says of itself; its files are not looked at.

    Raises
    ------
    UserError
        No export folder, one of another format, or its ``export.json`` is damaged.
    """
    path = pathlib.Path(folder) / EXPORT
    try:
        description = read_json(path)
    except (OSError, WrongJSON) as error:
        raise UserError(
            f"{folder} is not an export folder: cannot read {EXPORT} ({error}); "
            "openaff export writes one"
        ) from None
    if not isinstance(description, dict) or description.get("format") != EXPORT_FORMAT:
        raise UserError(f"{path} is of another format: export the network anew")
    try:
        check_kind(description, _EXPORT)
        _check_input(description)
        for name in description["files"]:
            if name != pathlib.PurePath(name).name:
                raise WrongJSON(f"files has {name!r}, which is no name of a file")
    except WrongJSON as error:
        raise UserError(f"{path} is damaged: {error}; export the network anew") from None
    return description


def read_weights(path):
    """What the record of weights in the package says.

    Raises
    ------
    UserError
        It is damaged, or of another format.
    """
    try:
        record = read_json(path, _WEIGHTS)
        if record["format"] != WEIGHTS_FORMAT:
            raise WrongJSON(f"its format is {record['format']!r}, not {WEIGHTS_FORMAT!r}")
        _check_input(record)
    except (OSError, WrongJSON) as error:
        raise UserError(f"{path} is damaged: {error}; install openaff anew") from None
    check_names(record["class_names"], path)
    return record


def _check_input(facts):
    """The rules beside kinds for what a network takes."""
    channels, *sides = facts["input_shape"]
    ratio, short = facts.get("crop_ratio"), facts.get("short_side")
    for key, holds, rule in (
        ("input_shape", channels == 3 and all(map(_is_side, sides)), "3, H, W"),
        ("std", min(facts["std"]) > 0, "positive"),
        ("crop_ratio", ratio is None or SMALLEST_RATIO <= ratio <= 1, f"in [{SMALLEST_RATIO}, 1]"),
        ("short_side", short is None or _is_side(short), "a number of pixels"),
    ):
        if not holds:
            raise WrongJSON(f"{key} must be {rule}, not {facts[key]}")


def _is_side(pixels):
    return 0 < pixels <= LARGEST_SIDE
