"""The argument parser of all programs."""

import argparse
import sys

from .errors import UserError, printable

LARGEST = 10**6  # that a count on a command line may be


def count(flag, text):
    """A positive integer of at most 1,000,000 from a command line, or a :class:`UserError`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and 0 < int(text) <= LARGEST):
        raise UserError(f"{flag} {text!r}: write a number from 1 to {LARGEST:,}")
    return int(text)


class Parser(argparse.ArgumentParser):
    """A parser that keeps the line breaks of its description and prints one-line errors."""

    def __init__(self, description, prog=None):
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, formatter_class=form)

    def parse_known_args(self, args=None, namespace=None):
        for text in sys.argv[1:] if args is None else args:
            try:
                text.encode()
            except UnicodeEncodeError:  # names of files may be any bytes, and nothing prints them
                self.error(f"{ascii(text)} is not in UTF-8: rename the file or folder")
        return super().parse_known_args(args, namespace)

    def error(self, message):
        self.exit(2, f"error: {printable(message)}; see --help\n")


def add_imports(parser):
    """Add ``--imports``, for :func:`~openaff.utils.imports.import_modules`."""
    parser.add_argument(
        "--imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="your module, which registers what you added; may be repeated",
    )
