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

from openaff import cli, table_pages, tables
from openaff.arguments import Parser
from openaff.errors import UserError
from openaff.table_plots import draw_all
from openaff.training.devices import parse_devices
from openaff.training.run import resume, train

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
        "--results", default=str(ROOT / "results"), metavar="DIR", help="results (%(default)s)"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="data.KEY=VALUE", help="where --run finds its data"
    )
    return parser.parse_intermixed_args()


def run_row(args, known):
    row, _ = tables.find_row(known, args.row)
    if not (args.run and args.out):
        raise UserError("--row needs --run and --out, the run folder")
    allowed = [f"data.{key}" for key in tables.WHEREABOUTS]
    foreign = [each for each in args.overrides if each.partition("=")[0] not in allowed]
    if foreign:
        raise UserError(
            f"{foreign[0]} would be another protocol: only {', '.join(allowed)} can be given"
        )
    protocol = "paper" if args.protocol is None else args.protocol
    seed = args.seed or 0
    config = tables.row_config(ROOT, row, protocol, [f"seed={seed}", *args.overrides])
    out, devices = pathlib.Path(args.out), parse_devices(args.devices or "cpu")
    if not out.exists():
        train(config, out, devices)
    else:
        if not tables.same_run(out, config):
            raise UserError(f"{out} is a run of another configuration: take another --out")
        if not (out / "result.json").exists():
            resume(out, devices)
    print("written", tables.record(args.results, out, row, protocol))


def main():
    args = parse_args()
    known = tables.load_tables(ROOT)
    if args.row is not None:
        run_row(args, known)
        return
    of_row = (args.out, args.protocol, args.seed, args.devices)
    if args.run or args.overrides or any(each is not None for each in of_row):
        raise UserError("--run, --out, settings and so on have an effect with --row only")
    if args.list:
        for table in known.values():
            print(f"# {table.key}: {table.title}")
            print("\n".join(tables.describe(ROOT, row) for row in table.rows) + "\n")
        return
    results = tables.read_results(args.results)
    if args.report:
        pictures = draw_all(ROOT / "docs", known, results)
        for path in table_pages.write_all(ROOT, known, results, pictures):
            print("written", path)
        return
    if args.table not in (*known, "all"):
        raise UserError(f"there is no table {args.table!r}: --list shows {', '.join(known)}")
    for key, table in known.items():
        if args.table in (key, "all"):
            print(table_pages.render(table, results))


if __name__ == "__main__":
    cli.run(main)
