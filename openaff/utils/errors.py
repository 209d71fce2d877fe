"""The one error type for input that the user can correct."""

import collections
import difflib
import numbers

_SUGGESTIONS = 3


class UserError(ValueError):
    """Unusable input.  The message says in one line what is wrong, where, and how to fix it.

    Commands print only the message and exit with status 2 (see :mod:`openaff.utils.cli`).
    """


def one_line(error):
    """An error's message in one line, or its type if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error):
    """The first line of an error's message, or its type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def last_line(error):
    """The last line of an error's message, or its type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def os_reason(error):
    """What an :class:`OSError` says, and of which file."""
    return f"{error.strerror or one_line(error)}: {error.filename or ''}".rstrip(": ")


def duplicates(names):
    """The names that stand there more than once, sorted."""
    return sorted(name for name, count in collections.Counter(names).items() if count > 1)


def printable(text):
    """The text with characters that would move a terminal's cursor as escapes, such as \\x1b."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def suggest(name, known, first=()):
    """``"; did you mean 'a' or 'b'?"`` for the names nearest to ``name``, or ``""``.

    ``first``: names that are meant for another reason, before the nearest ones.
    """
    near = difflib.get_close_matches(str(name), list(known), n=_SUGGESTIONS, cutoff=0.6)
    near = list(dict.fromkeys([*first, *near]))[:_SUGGESTIONS]
    return "; did you mean {}?".format(" or ".join(map(repr, near))) if near else ""


def positive_int(name, value):
    """Return ``value`` if it is a positive integer, otherwise raise a :class:`UserError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise UserError(f"{name} must be a positive integer, not {value!r}")
    return int(value)
