#!/usr/bin/env python
"""Train a network with AFF, and the same one with a plain sum, on the embedded digits.

python scripts/demo.py

Then train a feature pyramid with AFF to find digits of all sizes in scenes, pixel by pixel.
"""

import pathlib
from datetime import datetime

from openaff.analysis.fusion_weights import draw_fusion_weights, fusion_weights
from openaff.data import DataConfig, load_dataset
from openaff.data.loader import BatchLoader
from openaff.data.transforms import Normalize
from openaff.deploy.export import export_folder
from openaff.deploy.subject import run_subject
from openaff.tasks import METRICS, load_task
from openaff.tasks.pictures import draw_predictions
from openaff.training.config import load_config
from openaff.training.curves import plot_curves, read_metrics
from openaff.training.session import train
from openaff.utils import cli
from openaff.utils.arguments import Parser
from openaff.utils.devices import parse_devices

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
SHOWN = 5  # test images in the picture of fusion weights, and scenes drawn


def main():
    parser = Parser(__doc__)
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    parser.add_argument("--out", default="runs/demo-" + now, metavar="DIR", help="%(default)s")
    out = pathlib.Path(parser.parse_args().out)

    rows, devices = [], parse_devices("cpu")
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
        config = load_config(CONFIGS / f"{recipe}.yaml")
        result = train(config, out / name, devices)
        subject = run_subject(out / name)
        written = export_folder(subject, out / name / "export")
        for kind, difference in written["parity"].items():
            print(f"exported and run as {kind}: largest relative difference {difference:.1e}")
        rows.append((name, result, [out / name / "export" / file for file in written["files"]]))
        if name == "aff_resnet8":
            explain(subject.net, load_dataset(DataConfig()), out / "fusion_weights.png")
    dataset = load_dataset(config.data)
    draw_predictions(
        subject.net, dataset, load_task(dataset), out / "scenes", devices[0], count=SHOWN
    )
    digits = {name: read_metrics(out / name) for name, _, _ in rows[:2]}
    plot_curves(out / "curves.png", digits)
    report(rows, out)


def explain(net, dataset, path):
    """Draw the fusion weights of the first test images, with what the network says of them."""
    loader = BatchLoader(dataset.test, SHOWN, Normalize(dataset.mean, dataset.std))
    batch, _ = next(loader.epoch())
    predicted = net(batch).argmax(axis=1).asnumpy().astype(int)
    titles = [
        f"{dataset.class_names[label]}, predicted {dataset.class_names[guess]}"
        for label, guess in zip(dataset.test.targets, predicted)
    ]
    draw_fusion_weights(path, dataset.test.images[:SHOWN], fusion_weights(net, batch), titles)


def report(rows, out):
    line = "{:<14} {:>10} {:>9} {:>9} {:>9}  {}"
    print("\n" + line.format("model", "parameters", "best", "last", "images/s", "written"))
    for name, result, files in rows:
        headline = METRICS[result["headline"]]
        best, last = (headline.show(result[f"{each}_{headline.key}"]) for each in ("best", "last"))
        rate = f"{result['images_per_second']:.0f}"
        print(line.format(name, f"{result['parameters']:,}", best, last, rate, files[0]))
        for path in files[1:]:
            print(line.format("", "", "", "", "", path))
    print("(on test images, accuracy or mean IoU; best: the epoch was chosen on them)")
    print(f"curves: {out / 'curves.png'}")
    print(f"what the fusions weigh: {out / 'fusion_weights.png'}")
    print(f"scenes, truth and predictions: {out / 'scenes'}")


if __name__ == "__main__":
    cli.run(main)
