#!/usr/bin/env python
"""Train a network with AFF, and the same one with a plain sum, on the embedded digits.

python scripts/demo.py
"""

import pathlib
from datetime import datetime

from openaff.analysis.fusion_weights import draw_fusion_weights, fusion_weights
from openaff.data import DataConfig, load_dataset
from openaff.data.loader import BatchLoader
from openaff.data.transforms import Normalize
from openaff.deploy.export import export_folder
from openaff.deploy.subject import run_subject
from openaff.training.config import load_config
from openaff.training.curves import plot_curves, read_metrics
from openaff.training.session import train
from openaff.utils import cli
from openaff.utils.arguments import Parser
from openaff.utils.devices import parse_devices

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs" / "digits"
SHOWN = 5  # test images in the picture of fusion weights


def main():
    parser = Parser(__doc__)
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    parser.add_argument("--out", default="runs/demo-" + now, metavar="DIR", help="%(default)s")
    out = pathlib.Path(parser.parse_args().out)

    rows = []
    for name in ("aff_resnet8", "add_resnet8"):
        print(f"\n{name}: training on 1,437 digits, testing on 360 others")
        result = train(load_config(CONFIGS / (name + ".yaml")), out / name, parse_devices("cpu"))
        subject = run_subject(out / name)
        written = export_folder(subject, out / name / "export")
        for kind, difference in written["parity"].items():
            print(f"exported and run as {kind}: largest relative difference {difference:.1e}")
        rows.append((name, result, [out / name / "export" / file for file in written["files"]]))
        if name == "aff_resnet8":
            explain(subject.net, load_dataset(DataConfig()), out / "fusion_weights.png")
    plot_curves(out / "curves.png", {name: read_metrics(out / name) for name, _, _ in rows})
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
    line = "{:<12} {:>10} {:>9} {:>9} {:>9}  {}"
    print("\n" + line.format("model", "parameters", "best", "last", "images/s", "written"))
    for name, result, files in rows:
        print(
            line.format(
                name,
                "{:,}".format(result["parameters"]),
                "{:.2%}".format(result["best_accuracy"]),
                "{:.2%}".format(result["last_accuracy"]),
                "{:.0f}".format(result["images_per_second"]),
                files[0],
            )
        )
        for path in files[1:]:
            print(line.format("", "", "", "", "", path))
    print("(accuracy on the 360 test images; best: the epoch was chosen on them)")
    print(
        "curves: {}\nwhat the fusions weigh: {}".format(
            out / "curves.png", out / "fusion_weights.png"
        )
    )


if __name__ == "__main__":
    cli.run(main)
