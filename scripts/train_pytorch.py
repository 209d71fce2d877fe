#!/usr/bin/env python
"""Train a network for classification in PyTorch: the same as ``openaff train-pytorch``."""

from openaff.commands import run

if __name__ == "__main__":
    run("train-pytorch")
