"""The published tables, row by row: what was published, what it takes, and ours beside it.

    openaff tables --list
    openaff tables --table paper-table4
    openaff tables --row paper-table4.short-skip.aff.b2 --run \\
        --protocol reduced data.root=DIR
    openaff tables --table paper-table4 --run --protocol reduced \\
        --seeds 0,1,2 cifar100.root=DIR camvid.root=DIR
    openaff tables --table evidence --run --protocol reduced \\
        cifar100.root=DIR camvid.root=DIR
    openaff tables --report

--run trains a row, or goes on with its run folder, and then copies the result to results/ (of the
clone, if there is one), which --table and --report read.  A whole table skips the runs that have a
result, and has as many seeds as it says of each row (evidence: one to five), or those of --seeds.
The paper protocol is the published recipe; the reduced one is small and short enough for
two CPU cores.
"""

import pathlib

from ..data.config import WHEREABOUTS
from ..tables import pages, recipes
from ..tables import results as table_results
from ..tables.catalog import load_tables
from ..tables.speed import read_speed
from ..training.config import load_config
from ..training.session import resume, train
from ..utils.arguments import Parser, numbers, refuse
from ..utils.devices import parse_devices
from ..utils.errors import UserError
from ..utils.interrupt import Stopped
from ..utils.packaged import clone
from ..utils.program import program


def parse_args():
    parser = Parser(__doc__, "tables")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="print every row and its command")
    what.add_argument(
        "--table", metavar="NAME", help="print a table (with --run train it), or: all"
    )
    what.add_argument("--row", metavar="ID", help="with --run: the row to train")
    what.add_argument(
        "--report", action="store_true", help="in a clone: write the tables of docs and README"
    )
    parser.add_argument("--run", action="store_true", help="train --row, or all rows of --table")
    parser.add_argument("--group", metavar="KEY", help="of --table: short-skip, same-layer, ...")
    parser.add_argument("--protocol", metavar="NAME", help="of --run: paper (default) or reduced")
    parser.add_argument("--seed", type=int, metavar="N", help="of --row --run (0)")
    parser.add_argument("--seeds", metavar="N,N,...", help="of --table --run (the table's)")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="run folder of --row (one in runs); of --table, their parent (runs/reduced)",
    )
    parser.add_argument("--devices", help="of --run: cpu (default), cpu:N or gpu:0,1")
    parser.add_argument(
        "--start-from", metavar="DIR", help="of --row, where it continues another: that one's run"
    )
    parser.add_argument(
        "--results",
        metavar="DIR",
        help="folder of the result files (results, of the clone if there is one)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="data.KEY=VALUE",
        help="where --run finds its data; of a table on several sets, camvid.root=DIR and so on",
    )
    return parser.parse_intermixed_args()


def run_row(args, catalog, results):
    row = catalog.row(args.row)
    if not args.run:
        raise UserError("--row needs --run: it trains the row")
    refuse(args, ("seeds", "group"), "--row: it has --seed")
    protocol, seed = "paper" if args.protocol is None else args.protocol, args.seed or 0
    out = recipes.run_folder(row, protocol, seed) if args.out is None else pathlib.Path(args.out)
    path = train_row(args, catalog, results, row, protocol, seed, out)
    print("written", path)


def run_table(args, catalog, results):
    """Train the reduced form of every row that has one and no result, seed after seed."""
    refuse(args, ("seed", "start_from"), "--table: it has --seeds")
    if args.protocol != "reduced":
        raise UserError(
            "--table --run needs --protocol reduced: published recipes take days, row by row"
        )
    rows = {}  # run -> the row that asks for the most seeds
    for row in chosen_rows(args, catalog):
        if row.reduced and row.seeds > getattr(rows.get(row.run), "seeds", 0):
            rows[row.run] = row
    if not rows:
        raise UserError(f"no row of {args.table} has a reduced form: --list shows which have one")
    data = {run: recipes.row_config(row, "reduced").data.name for run, row in rows.items()}
    overrides = settings_by_dataset(args, sorted(set(data.values())))
    jobs = [
        (row, seed, recipes.run_folder(row, "reduced", seed, args.out), overrides[data[row.run]])
        for row, seed in planned_jobs(args.seeds, rows.values())
    ]
    for row, seed, out, settings in jobs:  # all are checked before the first is trained
        args.overrides = settings
        settle_devices(args, row, settle_config(args, catalog, row, "reduced", seed, out))
    for number, (row, seed, out, settings) in enumerate(jobs, start=1):
        args.overrides = settings
        path = table_results.result_path(results, row, "reduced", seed)
        title = f"[{number}/{len(jobs)}] {row.id}, seed {seed}"
        if path.exists():
            print(f"{title}: {path} is there")
            continue
        print(title, flush=True)
        print("written", train_row(args, catalog, results, row, "reduced", seed, out))


def settings_by_dataset(args, datasets):
    """Data set -> its overrides as ``data.KEY=VALUE``, of ``data.`` or ``DATASET.KEY=VALUE``."""
    found = {name: [] for name in datasets}
    for override in args.overrides:
        name, _, setting = override.partition(".")
        if name == "data" and len(datasets) == 1:
            name = datasets[0]
        if name not in found:
            roots = " ".join(f"{each}.root=DIR" for each in datasets)
            raise UserError(
                f"{override}: {args.table} is on {' and '.join(datasets)}: write {roots}, or name "
                "one --group"
            )
        found[name].append(f"data.{setting}")
    return found


def planned_jobs(seeds, rows):
    """(row, seed), seed after seed: those of ``--seeds``, or as many as each row is to have."""
    if seeds is not None:
        return [(row, seed) for seed in parse_seeds(seeds) for row in rows]
    most = max(row.seeds for row in rows)
    return [(row, seed) for seed in range(most) for row in rows if seed < row.seeds]


def parse_seeds(text):
    seeds = numbers("--seeds", text)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text}: a seed stands twice")
    return seeds


def chosen_rows(args, catalog):
    """The rows of --table and --group."""
    if args.table not in (*catalog, "all"):
        raise UserError(f"there is no table {args.table!r}: --list shows {', '.join(catalog)}")
    tables = catalog.values() if args.table == "all" else [catalog[args.table]]
    rows = [row for table in tables for row in table.rows]
    groups = {row.group: None for row in rows if row.group}
    if args.group not in (None, *groups):
        raise UserError(f"{args.table} has no group {args.group!r}: {', '.join(groups) or 'none'}")
    return [row for row in rows if args.group in (None, row.group)]


def train_row(args, catalog, results, row, protocol, seed, out):
    """Train a row, go on with its run, or find it finished; the path of its recorded result."""
    config = settle_config(args, catalog, row, protocol, seed, out)
    devices = settle_devices(args, row, config)
    finished = out.exists() and is_finished(out, config, args.overrides)
    path = table_results.result_path(results, row, protocol, seed)
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
    return table_results.record(results, out, catalog, row, protocol)


def settle_config(args, catalog, row, protocol, seed, out):
    allowed = [f"data.{key}" for key in WHEREABOUTS]
    foreign = [each for each in args.overrides if each.partition("=")[0] not in allowed]
    if foreign:
        raise UserError(
            f"{foreign[0]} would be another protocol: only {', '.join(allowed)} can be given"
        )
    config = recipes.row_config(row, protocol, [f"seed={seed}", *args.overrides])
    if row.start_from is None:  # as all that have a reduced form
        if args.start_from is not None:
            raise UserError(f"--start-from has no effect on {row.id}, which starts from scratch")
    elif args.start_from is not None:
        config.start_from = str(table_results.starting_weights(catalog, row, args.start_from))
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
            + recipes.gpus(count)
        )
    if len(devices) != count:
        raise UserError(
            f"the batch of {row.id} is the recipe's on {count} device{'s' * (count > 1)}: take "
            f"--devices {recipes.gpus(count)} or cpu{f':{count}' * (count > 1)}"
        )
    return devices


def run_config(out):
    if not (out / "config.yaml").exists():
        raise UserError(f"{out} is there, and no run folder: take another --out")
    return load_config(out / "config.yaml")


def is_finished(out, config, overrides):
    """Whether the run in a folder, which must be of this configuration, has ended."""
    theirs = run_config(out)
    if not recipes.same_run(theirs, config):
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


def list_rows(catalog):
    for table in catalog.values():
        print(f"# {table.key}: {table.title}")
        for row in table.rows:
            print(recipes.describe(row, program()))
            if row.reduced and row.run == row.id:
                dataset = recipes.row_config(row, "reduced").data.name
                print(recipes.describe_reduced(row, dataset, program=program()))
        for count in table.counts:
            print(f"{count.id}: counted, not trained; --table {table.key}")
        print()


def main():
    args = parse_args()
    catalog, root = load_tables(), clone()
    results = (
        pathlib.Path(root or "", "results") if args.results is None else pathlib.Path(args.results)
    )
    if args.row is not None:
        run_row(args, catalog, results)
        return
    if args.run and args.table is not None:
        run_table(args, catalog, results)
        return
    of_run = (args.out, args.protocol, args.seed, args.seeds, args.devices, args.start_from)
    if args.run or args.overrides or any(each is not None for each in of_run):
        raise UserError(
            "--out, --protocol, settings and so on are for training: --row or --table with --run"
        )
    if args.group is not None and args.table is None:
        raise UserError("--group has an effect with --table only")
    if args.list:
        if args.results is not None:
            raise UserError("--results has no effect on --list, which shows the commands")
        list_rows(catalog)
        return
    if args.report and root is None:
        raise UserError(
            "--report writes docs/tables.md and README.md of a clone of openaff, and this openaff "
            "is installed elsewhere: run it in a clone"
        )
    none_yet = args.results is None and not results.exists()
    found = {} if none_yet else table_results.read_results(results, catalog)
    speed = read_speed(root)
    if args.report:
        if not found:
            raise UserError(f"{results} holds no results: a report without any would be blank")
        for path in pages.write_all(root, catalog, found, speed):
            print("written", path)
        return
    chosen_rows(args, catalog)  # a wrong name is refused
    for key, table in catalog.items():
        groups = [None, *(row.group for row in table.rows)]
        if args.table in (key, "all") and args.group in groups:
            print(pages.render(table, found, catalog, args.group, speed))
