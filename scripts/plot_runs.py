#!/usr/bin/env python
"""Draw loss and accuracy by epoch, of several runs in one picture: the same as ``openaff plot``."""

from openaff.commands import run

if __name__ == "__main__":
    run("plot")
