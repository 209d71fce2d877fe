#!/usr/bin/env python
"""Export a network, as symbol, ONNX or PyTorch files: the same as ``openaff export``."""

from openaff.commands import run

if __name__ == "__main__":
    run("export")
