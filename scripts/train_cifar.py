#!/usr/bin/env python
"""Train a network on CIFAR-10, CIFAR-100 or the embedded digits.

    python scripts/train_cifar.py --config configs/cifar/aff_resnet8.yaml --out runs/aff8 \\
        data.root=DIR optimizer.lr=0.1
"""

import argparse

from openaff import cli
from openaff.config import load_config
from openaff.training.devices import parse_devices
from openaff.training.run import train


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="recipe, see configs/")
    parser.add_argument("--out", required=True, metavar="DIR", help="run folder to make")
    parser.add_argument(
        "--devices",
        default="cpu",
        help="cpu, cpu:N (N devices on the CPU) or gpu:0,1 (%(default)s)",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that differ from the file's"
    )
    args = parser.parse_intermixed_args()
    devices = parse_devices(args.devices)
    result = train(load_config(args.config, args.overrides), args.out, devices)
    print(
        "best accuracy {best_accuracy:.2%} (epoch {best_epoch}, {best_selection}), last "
        "{last_accuracy:.2%}; labels: {labels}".format(**result)
    )
    print(f"written to {args.out}")


if __name__ == "__main__":
    cli.run(main)
