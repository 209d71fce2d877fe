#!/usr/bin/env python
"""The published tables, row by row: what was published, what it takes, and ours beside it.

    python scripts/reproduce_tables.py --list
    python scripts/reproduce_tables.py --table fusions-resnet8
    python scripts/reproduce_tables.py --row fusions-resnet8.aff --run --protocol reduced \\
        --out runs/reduced/aff data.root=DIR
    python scripts/reproduce_tables.py --report

--run trains a row, or goes on with its run folder, and then copies the result to results/, which
alone --table and --report read.  The paper protocol is the published recipe; the reduced one trains
CIFAR ResNets at width m = 1 for 10 epochs, which two CPU cores can finish.
"""

import pathlib

from openaff.tables import pages as table_pages
from openaff.tables import records as tables
from openaff.training.config import load_config
from openaff.training.session import resume, train
from openaff.utils import cli
from openaff.utils.arguments import Parser
from openaff.utils.devices import parse_devices
from openaff.utils.errors import UserError
from openaff.utils.interrupt import Stopped

ROOT = pathlib.Path(__file__).resolve().parent.parent


def parse_args():
    parser = Parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="print every row and its command")
    what.add_argument("--table", metavar="NAME", help="print a table, or: all")
    what.add_argument("--row", metavar="ID", help="with --run: the row to train")
    what.add_argument("--report", action="store_true", help="write docs/tables.md and README")
    parser.add_argument("--run", action="store_true", help="train --row")
    parser.add_argument("--protocol", metavar="NAME", help="of --run: paper (default) or reduced")
    parser.add_argument("--seed", type=int, metavar="N", help="of --run (0)")
    parser.add_argument("--out", metavar="DIR", help="run folder of --run")
    parser.add_argument("--devices", help="of --run: cpu (default), cpu:N or gpu:0,1")
    parser.add_argument(
        "--start-from", metavar="DIR", help="of --run, for a row that continues another: its run"
    )
    parser.add_argument("--results", metavar="DIR", help="of all results (results, in the clone)")
    parser.add_argument(
        "overrides", nargs="*", metavar="data.KEY=VALUE", help="where --run finds its data"
    )
    return parser.parse_intermixed_args()


def run_row(args, known, results):
    row, _ = tables.find_row(known, args.row)
    if not (args.run and args.out):
        raise UserError("--row needs --run and --out, the run folder")
    out, protocol = pathlib.Path(args.out), "paper" if args.protocol is None else args.protocol
    config = settle_config(args, known, row, protocol, out)
    devices = settle_devices(args, row, config)
    finished = out.exists() and is_finished(out, config, args.overrides)
    path = tables.result_path(results, row, protocol, config.seed)
    if not finished:
        if results.exists() and not results.is_dir():
            raise UserError(f"--results {results} is no folder")
        if path.exists():
            raise UserError(
                f"{path} is there already: take another --seed, or a folder of your own, such as "
                "--results runs/results"
            )
        try:
            if out.exists():
                resume(out, devices)
            else:
                train(config, out, devices)
        except Stopped as stopped:
            raise Stopped(f"{stopped}; the same command goes on") from None
    print("written", tables.record(results, out, known, row, protocol))


def settle_config(args, known, row, protocol, out):
    allowed = [f"data.{key}" for key in tables.WHEREABOUTS]
    foreign = [each for each in args.overrides if each.partition("=")[0] not in allowed]
    if foreign:
        raise UserError(
            f"{foreign[0]} would be another protocol: only {', '.join(allowed)} can be given"
        )
    config = tables.row_config(ROOT, row, protocol, [f"seed={args.seed or 0}", *args.overrides])
    if row.start_from is None:  # as all that have a reduced form
        if args.start_from is not None:
            raise UserError(f"--start-from has no effect on {row.id}, which starts from scratch")
    elif args.start_from is not None:
        config.start_from = str(tables.starting_weights(ROOT, known, row, args.start_from))
    elif out.exists():  # it has started
        config.start_from = run_config(out).start_from
    if row.start_from and config.start_from is None:
        raise UserError(f"{row.id} needs --start-from, a finished run of {row.start_from}")
    return config


def settle_devices(args, row, config):
    devices = parse_devices("cpu" if args.devices is None else args.devices)
    count = row.devices
    if config.precision != "float32" and devices[0].device_type == "cpu":
        raise UserError(
            f"{row.id} is trained in {config.precision}, on GPUs only: take --devices "
            + tables.gpus(count)
        )
    if len(devices) != count:
        raise UserError(
            f"the batch of {row.id} is the recipe's on {count} device{'s' * (count > 1)}: take "
            f"--devices {tables.gpus(count)} or cpu{f':{count}' * (count > 1)}"
        )
    return devices


def run_config(out):
    if not (out / "config.yaml").exists():
        raise UserError(f"{out} is there, and no run folder: take another --out")
    return load_config(out / "config.yaml")


def is_finished(out, config, overrides):
    """Whether the run in a folder, which must be of this configuration, has ended."""
    theirs = run_config(out)
    if not tables.same_run(theirs, config):
        raise UserError(f"{out} is a run of another configuration: take another --out")
    if (out / "result.json").exists():
        return True
    for key in (override.partition("=")[0].partition(".")[2] for override in overrides):
        if getattr(theirs.data, key) != getattr(config.data, key):
            raise UserError(
                f"{out} goes on with data.{key}={getattr(theirs.data, key)}, as it began: leave "
                f"data.{key} out, or change it in {out / 'config.yaml'}"
            )
    return False


def main():
    args = parse_args()
    known = tables.load_tables(ROOT)
    results = pathlib.Path(ROOT / "results" if args.results is None else args.results)
    if args.row is not None:
        run_row(args, known, results)
        return
    of_row = (args.out, args.protocol, args.seed, args.devices, args.start_from)
    if args.run or args.overrides or any(each is not None for each in of_row):
        raise UserError("--run, --out, settings and so on have an effect with --row only")
    if args.list:
        if args.results is not None:
            raise UserError("--results has no effect on --list, which shows the commands")
        for table in known.values():
            print(f"# {table.key}: {table.title}")
            print("\n".join(tables.describe(row, table) for row in table.rows) + "\n")
        return
    found = tables.read_results(results, known)
    if args.report:
        if not found:
            raise UserError(f"{results} holds no results: a report without any would be blank")
        for path in table_pages.write_all(ROOT, known, found):
            print("written", path)
        return
    if args.table not in (*known, "all"):
        raise UserError(f"there is no table {args.table!r}: --list shows {', '.join(known)}")
    for key, table in known.items():
        if args.table in (key, "all"):
            print(table_pages.render(table, found))


if __name__ == "__main__":
    cli.run(main)
