"""Check that training can be imported and that an AFF block runs on a device."""

import json
import sys

from ..utils.framework import import_mxnet

import_mxnet()

import mxnet as mx  # noqa: E402

from .. import AFF  # noqa: E402
from ..training import session  # noqa: E402,F401  (all that training imports)
from ..utils import cli  # noqa: E402
from ..utils.devices import parse_devices  # noqa: E402


def main():
    """Run a block on each device of ``sys.argv[1]``, then print facts about mxnet as JSON."""
    cli.run(lambda: fuse(sys.argv[1]))


def fuse(devices):
    contexts = parse_devices(devices)
    block = AFF(8)
    block.initialize(ctx=contexts)
    block.hybridize()  # on GPUs, MXNet then compiles kernels of its own
    for context in contexts:
        image = mx.nd.ones((1, 8, 8, 8), ctx=context)
        block(image, image).wait_to_read()
    features = mx.runtime.Features()
    print(json.dumps({"version": mx.__version__, "cuda": features.is_enabled("CUDA")}))
