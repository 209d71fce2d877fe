"""Read JSON that others may have damaged: every value's kind is checked by a small description.

A description is one of

- a type: ``str``, ``bool``, ``dict``, ``list``; ``int``, an integer; ``float``, a finite number;
  ``object``, anything; ``None``, null;
- ``[kind]``, a list of such values, and ``[kind] * n`` with n > 1, a list of n of them;
- ``{str: kind}``, a mapping of any keys to such values;
- ``{"key": kind, "key?": kind}``, a mapping that has these keys, the ones with ``?`` perhaps, and
  any others;
- ``(kind, kind)``, one of them.
"""

import json
import math
import pathlib

from .files import refuse_special

_TYPES = {str: "a string", bool: "true or false", dict: "a mapping", list: "a list", None: "null"}


class WrongJSON(ValueError):
    """Not JSON, or JSON of another kind; the message says in one line what is wrong and where."""


def read_json(path, kind=object):
    """The value that a JSON file holds.

    Parameters
    ----------
    path : path-like
        A file in UTF-8.
    kind
        What it must hold, see the module.

    Raises
    ------
    WrongJSON
        It holds something else.
    OSError
        It cannot be read.
    UserError
        It is a pipe or a device.
    """
    refuse_special(path)
    return parse_json(pathlib.Path(path).read_bytes(), kind)


def parse_json(content, kind=object):
    """The value of a text, or of bytes in UTF-8; see :func:`read_json`."""
    try:
        value = json.loads(content)
    except RecursionError:
        raise WrongJSON("it is nested too deeply") from None
    except ValueError as error:
        raise WrongJSON(f"it is not JSON: {error}") from None
    check_kind(value, kind)
    return value


def read_json_lines(path, kind=object):
    """The values of a file of JSON values, one per line; see :func:`read_json`."""
    refuse_special(path)
    lines = pathlib.Path(path).read_bytes().splitlines()
    return [parse_json(line, kind) for line in lines]


def check_kind(value, kind, where=""):
    """Refuse a value that is not what a description says; ``where``: its name in messages.

    Raises
    ------
    WrongJSON
        It is something else.
    """
    problem = _problem(value, kind)
    if problem is None:
        if isinstance(kind, list):
            for number, each in enumerate(value):
                check_kind(each, kind[0], f"{where}[{number}]")
        elif isinstance(kind, dict) and str in kind:
            for key, each in value.items():
                check_kind(each, kind[str], _below(where, key))
        elif isinstance(kind, dict):
            for key, part in kind.items():
                name = key.rstrip("?")
                if name in value:
                    check_kind(value[name], part, _below(where, name))
                elif name == key:
                    raise WrongJSON(f"it has no {_below(where, name)}")
        return
    raise WrongJSON(f"{where or 'it'} must be {problem}, not {_shown(value)}")


def _below(where, key):
    return f"{where}.{key}" if where else key


def _problem(value, kind):
    """What ``value`` must be, in words, where it is something else; parts are not looked at."""
    if isinstance(kind, tuple):
        problems = [_whole_problem(value, each) for each in kind]
        return None if None in problems else " or ".join(problems)
    if kind is object:
        return None
    if isinstance(kind, list):
        count = len(kind) if len(kind) > 1 else None
        if isinstance(value, list) and count in (None, len(value)):
            return None
        return f"a list of {count} values" if count else "a list"
    if isinstance(kind, dict):
        return None if isinstance(value, dict) else "a mapping"
    if kind is None:
        return None if value is None else "null"
    if kind is int:
        return None if type(value) is int else "an integer"
    if kind is float:
        number = type(value) in (int, float) and math.isfinite(_as_float(value))
        return None if number else "a finite number"
    return None if isinstance(value, kind) else _TYPES[kind]


def _whole_problem(value, kind):
    """The same of a value and its parts."""
    problem = _problem(value, kind)
    if problem is None:
        try:
            check_kind(value, kind)
        except WrongJSON:
            return "a list of other values" if isinstance(value, list) else "a mapping of others"
    return problem


def _as_float(value):
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _shown(value):
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
