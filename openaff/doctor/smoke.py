"""Whether training's modules can be imported, and one operation on a device."""

import json
import sys

import mxnet as mx

from .. import cli
from ..training import run  # noqa: F401  (all that training imports)
from ..training.devices import parse_devices


def main():
    """A convolution on each device of ``sys.argv[1]``; then what mxnet is, as a line of JSON."""
    cli.run(lambda: convolve(sys.argv[1]))


def convolve(devices):
    for device in parse_devices(devices):
        image, weight = mx.nd.ones((1, 8, 8, 8), ctx=device), mx.nd.ones((8, 8, 3, 3), ctx=device)
        mx.nd.Convolution(image, weight, num_filter=8, kernel=(3, 3), no_bias=True).wait_to_read()
    features = mx.runtime.Features()
    print(json.dumps({"version": mx.__version__, "cuda": features.is_enabled("CUDA")}))
