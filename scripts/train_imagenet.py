#!/usr/bin/env python
"""Train a network, such as on ImageNet: the same as ``openaff train``."""

from openaff.commands import run

if __name__ == "__main__":
    run("train")
