"""Class names: which ones are allowed, and the file ``labels.txt``, one per line."""

import pathlib

from .digests import Damaged, check_digest
from .errors import UserError
from .files import read_text, write_text

LABELS = "labels.txt"


def check_names(names, where):
    """Refuse names that would end their line, move a terminal's cursor, or cannot be told apart.

    Parameters
    ----------
    names : sequence of str
        Class names.
    where : str or path-like
        Where they come from, for the message.

    Raises
    ------
    UserError
        A name is empty, stands there twice, or has a character that cannot be printed.
    """
    seen = set()
    for name in names:
        if not name.isprintable():
            raise UserError(
                f"{where}: the class name {name!r} has a character that cannot be printed, such as "
                "a line break: rename it"
            )
        if not name.strip():
            raise UserError(f"{where}: a class name is empty")
        if name in seen:
            raise UserError(f"{where}: the class name {name!r} stands there twice")
        seen.add(name)


def write_labels(folder, names):
    """Write ``labels.txt``; see :func:`check_names`."""
    path = pathlib.Path(folder) / LABELS
    check_names(names, path)
    write_text(path, "".join(name + "\n" for name in names))


def read_labels(folder, count=None):
    """The names in a folder's ``labels.txt``.

    Parameters
    ----------
    folder : path-like
        A run or an export.
    count : int, optional
        How many there must be.

    Returns
    -------
    tuple of str

    Raises
    ------
    UserError
        The file cannot be read, has another number of names, was changed after the run or export,
        or see :func:`check_names`.
    """
    path = pathlib.Path(folder) / LABELS
    text = read_text(path)
    # Not splitlines, which takes other characters for line breaks, too.
    names = tuple(text[:-1].split("\n") if text.endswith("\n") else text.split("\n"))
    if count is not None and len(names) != count:
        raise UserError(
            f"{path} has {len(names)} names, but the network was trained on {count} classes: put "
            "the original file back"
        )
    check_names(names, path)
    try:
        check_digest(path)
    except Damaged as error:
        raise UserError(f"{path}: {error}: put the original file back") from None
    return names
