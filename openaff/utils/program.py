"""How this program was started: ``openaff train``, or ``python scripts/train_cifar.py``."""

import pathlib
import shlex
import sys

from .packaged import PACKAGE


def split(argv):
    """The words that started a program, and its arguments, of ``sys.argv``.

    Returns
    -------
    words, arguments : list of str
        The words can be typed again, in the same folder.
    """
    path = pathlib.Path(argv[0]) if argv and argv[0] else pathlib.Path("-")
    if path.name == "openaff":
        return ["openaff", *argv[1:2]], argv[2:]
    if path.name == "__main__.py" and path.parent == PACKAGE:
        return ["python", "-m", "openaff", *argv[1:2]], argv[2:]
    if path.name == "__main__.py" and path.parent.parent == PACKAGE:
        return ["python", "-m", f"openaff.{path.parent.name}"], argv[1:]
    return ["python", argv[0]] if path.suffix == ".py" else [path.name], argv[1:]


def program():
    """The words that started this program, as one would type them."""
    return shlex.join(split(sys.argv)[0])


def arguments():
    """This program's arguments."""
    return split(sys.argv)[1]


def command():
    """Program and arguments, without the folder of a script, for records."""
    words, rest = split(sys.argv)
    if words[0] == "python" and words[1] != "-m":
        path = pathlib.Path(words[1])
        words = ["python", f"scripts/{path.name}" if path.parent.name == "scripts" else path.name]
    return shlex.join([*words, *rest])
