#!/usr/bin/env python
"""Train on the embedded digits, draw and export, in a few minutes: the same as ``openaff demo``."""

from openaff.commands import run

if __name__ == "__main__":
    run("demo")
