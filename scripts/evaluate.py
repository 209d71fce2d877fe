#!/usr/bin/env python
"""Evaluate a network on the test split of a data set: the same as ``openaff evaluate``."""

from openaff.commands import run

if __name__ == "__main__":
    run("evaluate")
