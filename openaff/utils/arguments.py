"""The command lines of all programs."""

import argparse


class Parser(argparse.ArgumentParser):
    """A parser that keeps the lines of its description, and words an error as one line."""

    def __init__(self, description, prog=None):
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, formatter_class=form)

    def error(self, message):
        self.exit(2, f"error: {message}; --help shows what there is\n")
