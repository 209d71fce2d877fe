#!/usr/bin/env python
"""Train a network on CIFAR-10, CIFAR-100 or the embedded digits.

    python scripts/train_cifar.py --config configs/cifar/aff_resnet8.yaml --out runs/aff8 \\
        data.root=DIR optimizer.lr=0.1
    python scripts/train_cifar.py --resume runs/aff8

SIGTERM and Ctrl-C finish the step, write a checkpoint and exit with status 75.  --resume goes on
from there, or after a crash from the last checkpoint, to the same result.
"""

import argparse

from openaff import cli
from openaff.config import load_config
from openaff.errors import UserError
from openaff.training.checkpointing import LAST, PREVIOUS
from openaff.training.devices import parse_devices
from openaff.training.run import resume, train


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="FILE", help="recipe, see configs/")
    parser.add_argument("--out", metavar="DIR", help="run folder to make")
    parser.add_argument("--resume", metavar="DIR", help="run folder to go on with, instead")
    parser.add_argument(
        "--checkpoint", metavar="NAME", help=f"of --resume's folder: {LAST} or {PREVIOUS}"
    )
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
    if args.resume:
        if args.config or args.out or args.overrides:
            raise UserError("--resume takes its settings from the run folder: leave others out")
        result = resume(args.resume, devices, args.checkpoint or LAST)
    else:
        if not (args.config and args.out):
            raise UserError("--config and --out are needed, or --resume")
        if args.checkpoint:
            raise UserError("--checkpoint has no effect without --resume")
        result = train(load_config(args.config, args.overrides), args.out, devices)
    if result:  # of several workers the first one has it
        print(
            "best accuracy {best_accuracy:.2%} (epoch {best_epoch}, {best_selection}), last "
            "{last_accuracy:.2%}; labels: {labels}".format(**result)
        )
        print(f"written to {args.resume or args.out}")


if __name__ == "__main__":
    cli.run(main)
