"""Train a network with AFF, and the same one with a plain sum, on the embedded digits.

    openaff demo --out runs/demo

Then train a feature pyramid with AFF to find digits of all sizes in scenes, pixel by pixel.  Draw
curves, heat maps and predictions, and export the networks.
"""

import pathlib
from datetime import datetime

import numpy as np
from PIL import Image

from ..analysis.explain import draw, explain
from ..data import DataConfig, load_dataset
from ..deploy.export import export_folder
from ..deploy.subject import run_subject
from ..tasks import METRICS, load_task
from ..tasks.pictures import draw_predictions
from ..training.config import load_config
from ..training.curves import plot_curves, read_metrics
from ..training.session import train
from ..utils.arguments import Parser
from ..utils.devices import parse_devices
from ..utils.files import atomic, refuse_existing
from ..utils.interrupt import Stopped

SHOWN = 5  # scenes drawn
EXPLAINED, SIDES = (3, 5), (32, 22)  # test digits, and the pixels that they are drawn with


def main():
    parser = Parser(__doc__, "demo")
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    parser.add_argument(
        "--out", default="runs/demo-" + now, metavar="DIR", help="run folder to make (%(default)s)"
    )
    out = pathlib.Path(parser.parse_args().out)
    refuse_existing(out)

    rows, subjects, devices = [], {}, parse_devices("cpu")
    for name, recipe, words in (
        ("aff_resnet8", "digits/aff_resnet8", "1,437 digits, testing on 360 others"),
        ("add_resnet8", "digits/add_resnet8", "the same"),
        (
            "aff_fpn_scenes",
            "segmentation/scenes_fpn",
            "400 scenes, testing on 100 others",
        ),
    ):
        print(f"\n{name}: training on {words}")
        config = load_config(recipe)
        try:
            result = train(config, out / name, devices)
        except Stopped as stopped:
            raise Stopped(f"{stopped}; remove {out}, then begin the demo again") from None
        subject = run_subject(out / name)
        written = export_folder(subject, out / name / "export")
        for kind, difference in written["parity"].items():
            print(f"exported and run as {kind}: largest relative difference {difference:.1e}")
        rows.append((name, result, [out / name / "export" / file for file in written["files"]]))
        subjects[name] = subject
    scenes = load_dataset(config.data)
    net, task = subjects.pop("aff_fpn_scenes").net, load_task(scenes)
    draw_predictions(net, scenes, task, out / "scenes", devices[0], count=SHOWN)
    draw_heat_maps(subjects, out / "heat_maps.png")
    plot_curves(out / "curves.png", {name: read_metrics(out / name) for name in subjects})
    report(rows, out)


def draw_heat_maps(subjects, path):
    """Draw where the networks for digits look in test digits, and what AFF weighs."""
    test = load_dataset(DataConfig()).test
    images, titles, truth = [], [], []
    for index in EXPLAINED:
        for side in SIDES:
            digit = Image.fromarray(test.images[index]).resize((side, side), Image.BILINEAR)
            canvas = Image.new("RGB", test.images[index].shape[1::-1])
            canvas.paste(digit, ((canvas.width - side) // 2, (canvas.height - side) // 2))
            images.append(np.asarray(canvas))
            titles.append(f"{side} pixels")
            truth.append(int(test.targets[index]))
    figure = draw(explain(subjects, images, titles, truth, weights=True))
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110)


def report(rows, out):
    line = "{:<14} {:>10} {:>9} {:>9} {:>9}  {}"
    print("\n" + line.format("model", "parameters", "best", "last", "images/s", "written"))
    for name, result, files in rows:
        headline = METRICS[result["headline"]]
        best, last = (headline.show(result[f"{each}_{headline.key}"]) for each in ("best", "last"))
        rate = f"{result['images_per_second']:.0f}"
        print(line.format(name, f"{result['trainable_parameters']:,}", best, last, rate, files[0]))
        for path in files[1:]:
            print(line.format("", "", "", "", "", path))
    print("(on test images, accuracy or mean IoU; best: the epoch was chosen on them)")
    print(f"curves: {out / 'curves.png'}")
    print(f"where the networks look, and what AFF weighs: {out / 'heat_maps.png'}")
    print(f"scenes, truth and predictions: {out / 'scenes'}")
