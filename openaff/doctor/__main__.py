"""Find out what this machine can do, and how to fix each problem.

    openaff doctor
    openaff doctor --devices gpu:0,1 --data DIR --json

The exit status is 0 if training can run on the devices, otherwise 1.
"""

import argparse
import json
import sys
from dataclasses import asdict

from ..utils import framework as runtime
from ..utils.arguments import Parser
from ..utils.cli import run
from .checks import check_devices, check_machine, check_requirements, check_system
from .data import check_data
from .finding import ERROR

A_DAY = 86400


def _seconds(text):
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= A_DAY:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number of seconds, a day at most")
    return value


def parse_args():
    parser = Parser(__doc__, "doctor")
    parser.add_argument(
        "--devices", default="cpu", help="devices to train on: cpu, cpu:N or gpu:0,1 (%(default)s)"
    )
    parser.add_argument("--data", metavar="DIR", help="also look for data sets here")
    parser.add_argument(
        "--time-limit",
        type=_seconds,
        default=120,
        metavar="S",
        help="seconds for each test, which runs in its own process (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object instead")
    return parser.parse_args()


def examine(args):
    """All findings, one by one."""
    yield check_system()
    if not runtime.unsupported():
        yield from check_requirements()
        yield from check_devices(args.devices, args.time_limit)
        yield from check_data(args.data)
    yield from check_machine()


def main():
    args = parse_args()
    findings = []
    for finding in examine(args):
        findings.append(finding)
        if not args.json:
            print(f"{finding.status:<8} {finding.subject:<11} {finding.text}", flush=True)
    can_train = all(finding.status != ERROR for finding in findings)
    if args.json:
        report = {"devices": args.devices, "can_train": can_train}
        print(json.dumps({**report, "findings": list(map(asdict, findings))}, indent=2))
    else:
        print(f"\nTraining {'can' if can_train else 'cannot'} run on {args.devices}.")
    sys.exit(not can_train)


if __name__ == "__main__":
    run(main)
