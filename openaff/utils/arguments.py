"""The argument parser of all programs."""

import argparse

from .errors import printable


class Parser(argparse.ArgumentParser):
    """A parser that keeps the line breaks of its description and prints one-line errors."""

    def __init__(self, description, prog=None):
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, formatter_class=form)

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
