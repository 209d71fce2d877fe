#!/usr/bin/env python
"""Measure speed as ratios: the same as ``openaff benchmark``."""

from openaff.commands import run

if __name__ == "__main__":
    run("benchmark")
