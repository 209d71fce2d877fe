"""Try out distributed training, with several workers on this machine.

    openaff launch -n 2 -- openaff train digits/aff_resnet8 --out runs/two kvstore=dist_sync

This starts MXNet's scheduler, its servers and the workers, and ends them all if one dies.  The exit
status is that of the first failed worker, or 0.  See docs/distributed.md for several machines.
"""

import argparse
import sys

from ..training.launch import launch
from ..utils.arguments import Parser
from ..utils.errors import UserError
from ..utils.framework import check_processes


def main():
    parser = Parser(__doc__, "launch")
    parser.add_argument("-n", type=int, default=2, metavar="N", help="workers (%(default)s)")
    parser.add_argument(
        "--servers", type=int, default=1, metavar="N", help="parameter servers (%(default)s)"
    )
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="after --: the program and its arguments"
    )
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UserError("write the program to run after --, such as openaff train")
    workers, servers = check_processes("-n", args.n), check_processes("--servers", args.servers)
    sys.exit(launch(command, workers, servers))
