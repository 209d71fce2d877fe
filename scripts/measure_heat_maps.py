#!/usr/bin/env python
"""Measure whether networks look at objects: the same as ``openaff measure-heat-maps``."""

from openaff.commands import run

if __name__ == "__main__":
    run("measure-heat-maps")
