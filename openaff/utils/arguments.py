"""The argument parser of all programs."""

import argparse

from .descriptions import LARGEST_SIDE
from .errors import UserError, printable
from .program import arguments, program

LARGEST = 10**6  # that a count on a command line may be


def count(flag, text):
    """A positive integer of at most 1,000,000 from a command line, or a :class:`UserError`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and 0 < int(text) <= LARGEST):
        raise UserError(f"{flag} {text!r}: write a number from 1 to {LARGEST:,}")
    return int(text)


def image_shape(flag, text, channels="C"):
    """The shape of a text such as ``3x224x224``, or a :class:`UserError`.

    ``channels``: how many there must be, or ``"C"`` for any number.
    """
    try:
        shape = tuple(count(flag, part) for part in text.split("x"))
    except UserError:
        shape = ()
    if len(shape) != 3 or channels not in ("C", shape[0]) or max(shape) > LARGEST_SIDE:
        raise UserError(
            f"{flag} {text!r}: write {channels}xHxW, such as 3x32x32, with sides of "
            f"{LARGEST_SIDE:,} at most"
        )
    return shape


def numbers(flag, text, kind=int, example="0,1,2"):
    """The numbers of a text such as ``0,1,2``, or a :class:`UserError`."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{flag} {text!r}: write numbers, such as {example}") from None


def refuse(args, flags, settled):
    """Refuse flags, by their names in ``args``, that have no effect with what is ``settled``."""
    for flag in flags:
        if getattr(args, flag) not in (None, False, []):
            raise UserError(f"--{flag.replace('_', '-')} has no effect with {settled}")


class Parser(argparse.ArgumentParser):
    """A parser that keeps the line breaks of its description and prints one-line errors.

    Parameters
    ----------
    description : str
        What the program does.  Its examples begin with ``openaff COMMAND``; where the program was
        started otherwise, the help says how.
    command : str, optional
        The name of the command, if it is one of ``openaff``'s.
    """

    def __init__(self, description, command=None):
        form = argparse.RawDescriptionHelpFormatter
        prog = program()
        description = description.replace(f"    openaff {command}", f"    {prog}")
        super().__init__(prog=prog, description=description, formatter_class=form)

    def parse_known_args(self, args=None, namespace=None):
        args = arguments() if args is None else args
        for text in args:
            try:
                text.encode()
            except UnicodeEncodeError:  # names of files may be any bytes, and nothing prints them
                self.error(f"{ascii(text)} is not in UTF-8: rename the file or folder")
        values, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            value = getattr(values, action.dest, None)
            empty = value == "" or isinstance(value, list) and "" in value  # such as "$UNSET"
            if empty and action.nargs != argparse.REMAINDER:  # of another program
                self.error(str(argparse.ArgumentError(action, "the value is empty")))
        return values, rest

    def error(self, message):
        self.exit(2, f"error: {printable(message)}; see --help\n")


def add_option(parser, help):
    """Add ``--option``, for :func:`~openaff.utils.configs.parse_options`."""
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="key=value",
        help=f"{help}; may be repeated",
    )


def add_imports(parser):
    """Add ``--imports``, for :func:`~openaff.utils.imports.import_modules`."""
    parser.add_argument(
        "--imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="your module, which registers what you added; may be repeated",
    )
