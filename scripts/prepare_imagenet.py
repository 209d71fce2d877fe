#!/usr/bin/env python
"""Pack ImageNet, or photographs of your own: the same as ``openaff prepare-imagenet``."""

from openaff.commands import run

if __name__ == "__main__":
    run("prepare-imagenet")
