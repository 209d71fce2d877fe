#!/usr/bin/env python
"""Draw where networks look: the same as ``openaff explain``."""

from openaff.commands import run

if __name__ == "__main__":
    run("explain")
