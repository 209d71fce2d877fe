"""Hurt openaff in every way that happens to users, and count how it takes it.

    python -m tests.faults                      all of it, half an hour on two cores
    python -m tests.faults --seed 7 --kills 5 --disks 5 --mutations 50 --commands 20

- kills: a training is killed (SIGKILL) at random times, resumed, and must end bit-equal;
- disks: the disk fills up in the middle; then, with room again, the same command must succeed;
- mutations: a file is damaged, and a command reads it;
- commands: arguments are wrong.

Each case must end with one line that says what is wrong, or without any effect.  A traceback, a
hang, a signal, or another result in silence is wanting, and the exit status is 1.
"""

import argparse
import importlib
import pathlib
import pkgutil
import sys
import tempfile

import openaff

from . import commands, disks, kills, mutate, workspace
from .judge import Tally


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (%(default)s)")
    for name, count in (("kills", 40), ("disks", 30), ("mutations", 800), ("commands", 150)):
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N", help="(%(default)s)")
    args = parser.parse_args()
    for module in pkgutil.walk_packages(openaff.__path__, "openaff."):
        pytorch = (".network", ".pytorch.engine", ".train_pytorch")  # they import PyTorch
        if not module.name.endswith(("__main__", ".smoke", *pytorch)):
            importlib.import_module(module.name)  # once, before every case's fork
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="openaff-faults-") as folder:
        folder = pathlib.Path(folder)
        torch = workspace.make(folder / "work")
        print(f"seed {args.seed}", flush=True)
        mutate.campaign(folder / "work", args.mutations, args.seed, tally, torch)
        commands.campaign(folder / "work", args.commands, args.seed, tally)
        disks.campaign(folder, args.disks, args.seed, tally)
        kills.campaign(folder, args.kills, args.seed, tally)
    print(tally.table())
    print(f"seed {args.seed}; wanting: {len(tally.wanting)}")
    sys.exit(bool(tally.wanting))


if __name__ == "__main__":
    main()
