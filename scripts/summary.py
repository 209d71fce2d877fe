#!/usr/bin/env python
"""What networks cost: the same as ``openaff summary``."""

from openaff.commands import run

if __name__ == "__main__":
    run("summary")
