#!/usr/bin/env python
"""Train a network on CIFAR-10, CIFAR-100 or the embedded digits.

    python scripts/train_cifar.py --config configs/cifar/aff_resnet8.yaml --out runs/aff8 \\
        data.root=DIR optimizer.lr=0.1
    python scripts/train_cifar.py --resume runs/aff8

SIGTERM and Ctrl-C finish the step, write a checkpoint and exit with status 75.  --resume continues
from there, or after a crash from the last checkpoint, to the same result.
"""

from openaff.training.command import main
from openaff.utils import cli

if __name__ == "__main__":
    cli.run(lambda: main(__doc__))
