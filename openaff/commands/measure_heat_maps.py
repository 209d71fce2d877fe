"""Measure whether networks look at objects, over a test split, and by fusion.

    openaff measure-heat-maps runs/scenes/* --out measurements/heat_maps/scenes.json
    openaff measure-heat-maps runs/add8 runs/aff8 --data DIR --out cifar100.json
    openaff measure-heat-maps --page docs/heat_maps.md

Runs of one data set, with any number of seeds of each fusion.  Of networks for segmentation: the
share of the heat map's energy that lies inside the object, by the object's size.  Of classifiers:
how the probability of the true class falls as the marked pixels go, and rises as they alone stay.
--page writes the tables of measurements/heat_maps into a page.
"""

import pathlib
from functools import partial

import mxnet as mx
import numpy as np

from ..analysis.cam import METHODS
from ..analysis.cam.study import (
    energy_of_objects,
    fall_and_rise,
    objects_of,
    summarise,
)
from ..data import DATASETS, load_dataset
from ..data.transforms import IGNORE, Normalize
from ..deploy.subject import run_data, run_subject
from ..models import model_info
from ..tasks import TASKS
from ..utils.arguments import Parser, refuse
from ..utils.errors import UserError, one_line, positive_int
from ..utils.files import check_parent, read_text, write_json, write_text
from ..utils.json_files import read_json
from ..utils.markdown import markdown, with_blocks
from ..utils.packaged import clone
from ..utils.provenance import provenance
from ._flags import check_flags

SIZES = ("small", "medium", "large")  # thirds of all objects
BASELINE = "add"
METHOD, IMAGES = "gradcam", 1000  # by default


def parse_args():
    parser = Parser(__doc__, "measure-heat-maps")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folders of finished runs")
    parser.add_argument("--out", metavar="FILE.json", help="where the figures go")
    parser.add_argument("--data", metavar="DIR", help="folder of the data set, if it has moved")
    parser.add_argument("--method", choices=METHODS, help=f"({METHOD})")
    parser.add_argument("--images", type=int, metavar="N", help=f"test images at most ({IMAGES:,})")
    parser.add_argument("--page", metavar="FILE.md", help="write the committed tables into it")
    return parser.parse_args()


def load_runs(folders):
    """Fusion -> subjects, the plain sum first."""
    by_fusion = {}
    for folder in folders:
        subject = run_subject(folder, which="last")  # the best epoch was chosen on these images
        fusion = model_info(subject.model).fusion or subject.options.get("fusion", BASELINE)
        seeds = by_fusion.setdefault(str(fusion), [])
        if seeds and (subject.model, subject.options) != (seeds[0].model, seeds[0].options):
            raise UserError(
                f"{folder} is no other seed of {seeds[0].model}: its network or its options differ"
            )
        if subject.score["seed"] in [each.score["seed"] for each in seeds]:
            raise UserError(f"{folder} has the seed of another run of {subject.model}: name one")
        seeds.append(subject)
    if BASELINE not in by_fusion:
        raise UserError("name a run of the plain sum, too: the others are compared with it")
    subjects = [subject for seeds in by_fusion.values() for subject in seeds]
    kinds = {(subject.dataset, subject.labels) for subject in subjects}
    if len(kinds) > 1:
        raise UserError(f"the runs are of several data sets: {', '.join(map(str, sorted(kinds)))}")
    first, *others = subjects
    for other in others:
        if other.class_names != first.class_names:
            raise UserError(f"the runs of {other.model} and {first.model} have other classes")
    return {BASELINE: by_fusion.pop(BASELINE), **by_fusion}


def measure_energy(by_fusion, method, dataset, count):
    """Rows by object size, of networks for segmentation."""
    test = dataset.test_images()
    targets = [test.take([index], None)[1][0] for index in range(min(count, len(test)))]
    objects = objects_of(targets, len(dataset.class_names))
    objects = [each for each in objects if dataset.class_names[each[1]] != "background"]
    if not objects:
        raise UserError(
            f"{dataset.name}: no test image has a class that is one object: --images takes more"
        )
    normalize = Normalize(dataset.mean, dataset.std)
    figures = {
        fusion: [
            energy_of_objects(partial(METHODS[method], subject.net), normalize, test, objects)
            for subject in subjects
        ]
        for fusion, subjects in by_fusion.items()
    }
    pixels = np.array([size for _, _, size in objects])
    whole = np.array([(targets[index] != IGNORE).sum() for index, _, _ in objects])
    limits = np.quantile(pixels / whole, (1 / 3, 2 / 3))
    groups = np.digitize(pixels / whole, limits)
    rows = []
    for number, size in enumerate(SIZES):
        chosen = groups == number
        if not chosen.any():  # many objects of one size
            continue
        for fusion, runs in figures.items():
            rows.append(
                {
                    "size": size,
                    "objects": int(chosen.sum()),
                    "area": float((pixels / whole)[chosen].mean()),
                    "fusion": fusion,
                    "seeds": len(runs),
                    **{
                        name: summarise(name, runs, figures[BASELINE], chosen)
                        for name in ("energy", "iou")
                    },
                }
            )
    return rows


def measure_fall_and_rise(by_fusion, method, dataset, count):
    """Rows by fusion, of classifiers, on the images that all of them classify right."""
    test = dataset.test_images()
    images, categories = test.take(np.arange(min(count, len(test))), None)
    images = Normalize(dataset.mean, dataset.std)(images)
    figures, right = {}, np.ones(len(images), bool)
    for fusion, subjects in by_fusion.items():
        figures[fusion] = []
        for subject in subjects:
            make = partial(METHODS[method], subject.net)
            figures[fusion].append(fall_and_rise(make, subject.net, images, categories))
            right &= predictions(subject.net, images) == categories
    if not right.any():
        raise UserError("there is no test image that all of the networks classify right")
    names = ("probability", "deletion", "insertion", "difference")
    return [
        {
            "images": int(right.sum()),
            "fusion": fusion,
            "seeds": len(runs),
            **{name: summarise(name, runs, figures[BASELINE], right) for name in names},
        }
        for fusion, runs in figures.items()
    ]


def predictions(net, images, batch_size=100):
    steps = range(0, len(images), batch_size)
    batches = (mx.nd.array(images[start : start + batch_size]) for start in steps)
    return np.concatenate([net(batch).argmax(axis=1).asnumpy().astype(int) for batch in batches])


def measure(args):
    data = run_data(args.runs[0])
    if args.data is not None:
        data.root = args.data
        check_flags(data)
    by_fusion, dataset = load_runs(args.runs), load_dataset(data)
    if tuple(dataset.class_names) != tuple(by_fusion[BASELINE][0].class_names):
        raise UserError("the runs have other classes than the data: name theirs with --data")
    dense = TASKS[DATASETS[data.name].task].dense
    measure_rows = measure_energy if dense else measure_fall_and_rise
    method, count = args.method or METHOD, IMAGES
    if args.images is not None:
        count = positive_int("--images", args.images)
    rows = measure_rows(by_fusion, method, dataset, count)
    return {
        "dataset": dataset.name,
        "labels": dataset.labels,
        "split": f"test split ({dataset.split})",
        "method": method,
        "layer": "the last map that the head sees",
        "networks": [
            {"model": subject.model, "options": subject.options, **subject.score}
            for subjects in by_fusion.values()
            for subject in subjects
        ],
        "rows": rows,
        **provenance(),
    }


def percent(value, spread, sign=""):
    """``value ± spread`` in percent, as far as they are known."""
    if value is None:
        return ""
    return f"{100 * value:{sign}.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


def table(result):
    """The figures in Markdown: mean ± deviation over seeds (difference to the plain sum)."""
    (first, *_) = result["rows"]
    by_size = "size" in first
    names = ("energy", "iou") if by_size else ("deletion", "insertion", "difference")
    titles = {"energy": "energy inside", "iou": "IoU", "difference": "insertion - deletion"}
    columns = ["objects"] if by_size else []
    columns += ["fusion", "seeds"]
    columns += ["empty maps, %"] if by_size else []
    for name in names:
        columns += [f"{titles.get(name, name)}, %", "minus the plain sum"]
    cells = []
    for row in result["rows"]:
        cell = (
            [f"{row['size']} ({row['objects']}, {row['area']:.1%} of an image)"] if by_size else []
        )
        cell += [row["fusion"], str(row["seeds"])]
        if by_size:
            empty = row["energy"]["without"]
            cell += [f"{100 * empty:.1f}" if empty else ""]
        for name in names:
            figure, other = row[name], row["fusion"] != BASELINE
            cell.append(percent(figure["mean"], figure["std"]))
            cell.append(percent(figure["difference"], figure["interval"], "+") if other else "")
        cells.append(cell)
    return "\n".join(markdown(columns, cells))


def write_page(path):
    """Put the tables of all committed results between their marks in a page."""
    root = clone()
    if root is None:
        raise UserError("--page writes the figures of a clone's measurements/: run it in a clone")
    path, files = pathlib.Path(path), sorted((root / "measurements" / "heat_maps").glob("*.json"))
    blocks = {}
    for file in files:
        try:
            blocks[file.stem] = table(read_json(file, {"rows": [{"fusion": str, "seeds": int}]}))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file} holds no figures of heat maps: {one_line(error)}") from None
    write_text(path, with_blocks(read_text(path), blocks, path.name, "--page"))


def main():
    args = parse_args()
    if args.page:
        flags = ("runs", "out", "data", "method", "images")
        refuse(args, flags, "--page: it writes what measurements/heat_maps holds")
        write_page(args.page)
        print("written", args.page)
        return
    if not args.runs or not args.out:
        raise UserError("name run folders, and --out for the figures")
    check_parent(args.out)
    result = measure(args)
    write_json(args.out, result)
    print(table(result))
    print("written", args.out)
