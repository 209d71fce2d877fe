#!/usr/bin/env python
"""Try out training with several workers on this machine: the same as ``openaff launch``."""

from openaff.commands import run

if __name__ == "__main__":
    run("launch")
