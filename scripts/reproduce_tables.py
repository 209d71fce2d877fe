#!/usr/bin/env python
"""The published tables, row by row: the same as ``openaff tables``."""

from openaff.commands import run

if __name__ == "__main__":
    run("tables")
