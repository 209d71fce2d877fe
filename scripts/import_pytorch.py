#!/usr/bin/env python
"""Turn a PyTorch state dict into MXNet parameters: the same as ``openaff import-pytorch``."""

from openaff.commands import run

if __name__ == "__main__":
    run("import-pytorch")
