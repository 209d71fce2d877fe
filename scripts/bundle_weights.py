#!/usr/bin/env python
"""Put a finished run's network into the package: the same as ``openaff bundle-weights``."""

from openaff.commands import run

if __name__ == "__main__":
    run("bundle-weights")
