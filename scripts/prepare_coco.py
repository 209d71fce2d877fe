#!/usr/bin/env python
"""Make a data set of some of COCO's categories: the same as ``openaff prepare-coco``."""

from openaff.commands import run

if __name__ == "__main__":
    run("prepare-coco")
