#!/usr/bin/env python
"""Train a network on ImageNet, or on images of your own in class folders.

    python scripts/train_imagenet.py --config configs/imagenet/2020-11/aff_resnet50.yaml \\
        --out runs/aff50 --devices gpu:0,1,2,3 data.root=DIR
    python scripts/train_imagenet.py --resume runs/aff50 --devices gpu:0,1,2,3

DIR holds train.rec and val.rec, see prepare_imagenet.py, or class folders in train/ and val/.
SIGTERM and Ctrl-C finish the step, write a checkpoint and exit with status 75.  --resume continues
from there, or after a crash from the last checkpoint, to the same result.
"""

import os

# Before mxnet is imported: cuDNN measures its algorithms, with as much memory as they want.
os.environ.setdefault("MXNET_CUDNN_AUTOTUNE_DEFAULT", "2")

from openaff.training.command import main  # noqa: E402
from openaff.utils import cli  # noqa: E402

if __name__ == "__main__":
    cli.run(lambda: main(__doc__))
