"""Draw loss and accuracy by epoch, of several runs in one picture.

    openaff plot --out curves.png runs/aff8 runs/add8
    openaff plot --out curves.png ours=runs/aff8 theirs=published.csv

A source is a run folder, a result file of results/, or a CSV file.  A CSV file has the column epoch
and any of train_KEY and test_KEY, where KEY is loss, accuracy, mean_iou, pixel_accuracy, iou or
niou (fractions between 0 and 1, but for the loss).
"""

import pathlib
import sys

from ..data import DATASETS
from ..training.curves import plot_curves, read_metrics
from ..utils.arguments import Parser
from ..utils.configs import read_yaml
from ..utils.descriptions import RESULT
from ..utils.errors import UserError
from ..utils.json_files import read_json


def main():
    parser = Parser(__doc__, "plot")
    parser.add_argument("sources", nargs="+", metavar="[NAME=]SOURCE", help="see above")
    parser.add_argument("--out", required=True, metavar="FILE.png", help="picture to write")
    args = parser.parse_args()
    if pathlib.Path(args.out).suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"--out {args.out}: name a .png, .svg or .pdf file")
    runs, kinds = {}, set()
    for text in args.sources:
        name, equals, source = text.partition("=")
        path = pathlib.Path(text)
        if path.exists() or not equals:
            name, source = path.name if path.is_dir() else path.stem, text
        if name in runs:
            raise UserError(f"two sources are called {name!r}: write NAME=SOURCE")
        runs[name] = read_metrics(source)
        kinds |= {data_of(pathlib.Path(source))} - {None}
    if len(kinds) > 1:
        print(
            f"warning: these are runs on {' and on '.join(sorted(kinds))}: do not compare them",
            file=sys.stderr,
        )
    plot_curves(args.out, runs)
    print("written", args.out)


def data_of(path):
    """Data set and labels of a run folder or a result file, in words; None: not known."""
    try:
        if path.is_dir() and not (path / RESULT).exists():  # it is not finished
            data = read_yaml(path / "config.yaml")["data"]
            info = DATASETS[data["name"]]
            granularity = info.granularity(data.get("labels"))
            return granularity.classes and f"{info.title}, {granularity.words}"
        path = path / RESULT if path.is_dir() else path
        if path.suffix == ".json":
            result = read_json(path, {"dataset": str, "labels": str})
            return f"{DATASETS[result['dataset']].title}, {result['labels']}"
    except (OSError, ValueError, KeyError, TypeError):  # a run of another edition, and so on
        pass
    return None
