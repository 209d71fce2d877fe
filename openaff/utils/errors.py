"""The one error type for input that its user can mend."""

import difflib
import numbers


class UserError(ValueError):
    """Input that cannot be used: the message says in one line what, where, and what to do.

    Scripts print the message alone and exit with status 2 (see :mod:`openaff.utils.cli`).
    """


def one_line(error):
    """What an error says, in one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def suggest(name, known, count=3):
    """``"; did you mean 'a' or 'b'?"`` for the names nearest to ``name``, or ``""``."""
    near = difflib.get_close_matches(str(name), list(known), n=count, cutoff=0.6)
    return "; did you mean {}?".format(" or ".join(map(repr, near))) if near else ""


def positive_int(name, value):
    """``value``, or a :class:`UserError` naming ``name`` where it is no positive integer."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise UserError(f"{name} must be a positive integer, not {value!r}")
    return int(value)
