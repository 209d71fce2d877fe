"""Wrong commands: one argument of a right one is changed, lost or added."""

import random
import shutil

from tqdm import tqdm

from .judge import judge, run
from .workspace import DIGITS, SHORT

RIGHT = [
    ["train_cifar.py", *map(str, DIGITS), *SHORT, "--out", "made"],
    ["train_cifar.py", "--resume", "stopped-copy"],
    ["train_segmentation.py", "--config", "masks-run/config.yaml", "--out", "made"],
    ["train_imagenet.py", "--config", "packed-run/config.yaml", "--out", "made"],
    ["evaluate.py", "--run", "run", "--json", "--batch-size", "64"],
    ["evaluate.py", "--run", "masks-run", "--scales", "1,1.5", "--flip", "--tile", "32"],
    ["export.py", "--run", "run", "--out", "made", "--format", "symbol,onnx", "--batch", "2"],
    ["predict.py", "--export", "export", "--engine", "onnxruntime", "--top", "3", "photo.png"],
    ["explain.py", "--run", "run", "--test", "0,1", "--methods", "gradcam", "--out", "made.png"],
    ["summary.py", "aff_cifar_resnet8", "--verbose"],
    ["plot_runs.py", "--out", "made.png", "run"],
    ["prepare_imagenet.py", "--out", "made", "--train", "photos/train", "--val", "photos/val"],
    ["reproduce_tables.py", "--table", "paper-table4", "--group", "short-skip"],
    ["reproduce_tables.py", "--row", "fusions-resnet8.aff", "--run", "--protocol", "reduced"]
    + ["--out", "made", "data.root=nowhere"],
    ["launch_local.py", "-n", "2", "--", "true"],
    ["measure_heat_maps.py", "run", "--out", "made.json"],
]
NONSENSE = [
    "",
    " ",
    "-1",
    "0",
    "nan",
    "1e999",
    "999999999999999",
    "\u0663",
    "none",
    "../..",
    "/",
    "/dev/null",
    "/dev/zero",
    "nowhere",
    "photo.png",
    "run",
    "\x1b[31mred",
    "a\nb",
    "x" * 3000,
    "\udcff",
    "gpu:0",
    "cpu:0",
    "epochs=0",
    "data.batch_size=0",
    "data.nothing=1",
    "optimizer.lr=fast",
    "model.name=aff_cifar_resnet9",
    "data={}",
    "=",
    "seed=[1",
]


def campaign(folder, count, seed, tally):
    rng = random.Random(f"commands {seed}")
    for number in tqdm(range(count), unit="command", leave=False, disable=None):
        words = list(RIGHT[number % len(RIGHT)])
        place = rng.randrange(1, len(words))
        kind = rng.choice(("changed", "changed", "changed", "lost", "added", "twice", "unknown"))
        if kind == "changed":
            words[place] = rng.choice(NONSENSE)
        elif kind == "lost":
            del words[place]
        elif kind == "added":
            words.append(rng.choice(NONSENSE))
        elif kind == "twice":
            words.insert(place, words[place])
        else:
            words.insert(place, rng.choice(("--nothing", "--out", "-x", "--seed", "--json=1")))
        for name in ("made", "stopped-copy"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("made.png", "made.json"):
            (folder / name).unlink(missing_ok=True)
        shutil.copytree(folder / "stopped", folder / "stopped-copy")
        verdict, why = judge(run(words, folder, seconds=120))
        shown = " ".join(repr(word) if not word.isprintable() else word[:60] for word in words)
        tally.add("wrong command", f"{number}: {shown}", verdict, why)
