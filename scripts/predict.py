#!/usr/bin/env python
"""Run an exported network on photographs: the same as ``openaff predict``."""

from openaff.commands import run

if __name__ == "__main__":
    run("predict")
