"""Mutations of every kind of file that openaff reads."""

import hashlib
import json
import random
import shutil

from tqdm import tqdm

from .judge import judge, run
from .mutations import damage
from .workspace import SHORT

RESULT = "reduced/aff_cifar_resnet8-fusions-resnet8.aff-seed0.json"
TEXTS = (".json", ".txt", ".yaml", ".csv", ".jsonl", ".idx", ".py")


def campaign(folder, count, seed, tally, torch):
    """Damage files of the workspace, one at a time, and run what reads them."""
    rng = random.Random(f"mutations {seed}")
    targets = list(_targets(torch))
    references = {}
    others = [(folder / file).read_bytes() for _, file, _, _ in targets]
    for number in tqdm(range(count), unit="mutation", leave=False, disable=None):
        kind, file, words, result = targets[number % len(targets)]
        if tuple(words) not in references:
            ended = _run(words, folder)
            assert ended.status == 0, (words, ended.err)
            references[tuple(words)] = result and result(folder, ended)
        path = folder / file
        whole = path.read_bytes()
        what, changed = damage(whole, rng, others, path.suffix in TEXTS)
        if changed == whole:
            continue
        path.write_bytes(changed)
        try:
            ended = _run(words, folder)
            same = None
            if result:
                same = lambda: result(folder, ended) == references[tuple(words)]  # noqa: B023, E731
            verdict, why = judge(ended, same)
        finally:
            path.write_bytes(whole)
        if verdict == "wanting":
            (folder.parent / f"wanting-{number}{path.suffix}").write_bytes(changed)
        tally.add(kind, f"{number}: {what} of {file}", verdict, why)


def _run(words, folder):
    """A case; what the command makes is removed, but for what its result is read from."""
    for name in ("made", "made.png", "made.json", "made.params"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if "--resume" in words:
        shutil.rmtree(folder / "made", ignore_errors=True)
        shutil.copytree(folder / "stopped", folder / "made")
    return run(words, folder)


def _predictions(folder, ended):
    return json.loads(ended.out)["predictions"]


def _accuracy(folder, ended):
    result = json.loads(ended.out)
    return [result.get(key) for key in ("accuracy", "mean_iou", "loss", "images", "labels")]


def _exported(folder, ended):
    described = json.loads((folder / "made/export.json").read_text())
    return described["files"], (folder / "made/labels.txt").read_text()


def _params(folder, ended):
    return hashlib.sha256((folder / "made/last.params").read_bytes()).hexdigest()


def _written(folder, ended):
    return hashlib.sha256((folder / "made.params").read_bytes()).hexdigest()


def _targets(torch):
    """(kind, file, command, what its result is or None where any may be right)."""
    for engine, files in (
        ("mxnet", ("add_cifar_resnet8-symbol.json", "add_cifar_resnet8-0000.params")),
        ("onnxruntime", ("add_cifar_resnet8.onnx", "export.json", "labels.txt")),
        ("onnxruntime-int8", ("add_cifar_resnet8-int8.onnx",)),
        ("pytorch", ("add_cifar_resnet8.safetensors", "network.py")),
    ):
        if engine == "pytorch" and not torch:
            continue
        words = ["predict.py", "--export", "export", "--engine", engine, "--json", "photo.png"]
        for file in files:
            yield "export", f"export/{file}", words, _predictions
    for file in ("best.params", "result.json", "config.yaml", "labels.txt"):
        yield "run", f"run/{file}", ["evaluate.py", "--run", "run", "--json"], _accuracy
        words = ["export.py", "--run", "run", "--out", "made", "--format", "symbol"]
        yield "run", f"run/{file}", words, _exported
    for file in ("last.ckpt", "config.yaml", "metrics.jsonl"):
        yield "checkpoint", f"stopped/{file}", ["train_cifar.py", "--resume", "made"], _params
    for file in ("val.rec", "val.idx", "manifest.json"):
        words = ["evaluate.py", "--run", "packed-run", "--json"]
        yield "records", f"packed/{file}", words, _accuracy
    recipe = ["train_imagenet.py", "--config", "packed-run/config.yaml", "--out", "made"]
    for file in ("train.rec", "train.idx", "manifest.json"):
        yield "records", f"packed/{file}", recipe, _params
    words = ["prepare_imagenet.py", "--out", "made", "--workers", "1"]
    words += ["--train", "official/train.tar", "--val", "official/val.tar"]
    words += ["--devkit", "official/devkit.tar.gz"]
    for file in ("train.tar", "val.tar", "devkit.tar.gz"):
        yield "archives", f"official/{file}", words, None
    words = ["prepare_coco.py", "--coco", "coco", "--category", "stop sign", "--out", "made"]
    yield "annotations", "coco/annotations/instances_train2017.json", words, None
    words = ["reproduce_tables.py", "--results", "results", "--table", "fusions-resnet8"]
    yield "results", f"results/{RESULT}", words, None
    words = ["evaluate.py", "--run", "masks-run", "--json"]
    for file in ("masks/0.png", "images/0.png", "classes.txt"):
        yield "images", f"masks/{file}", words, None
    words = ["predict.py", "--export", "export", "--json", "photo.png"]
    yield "images", "photo.png", words, None
    words = ["explain.py", "--run", "run", "photo.png", "--out", "made.png"]
    yield "images", "photo.png", words, None
    yield (
        "recipe",
        "recipe.yaml",
        ["train_cifar.py", "--config", "recipe.yaml", "--out", "made", *SHORT],
        None,
    )
    yield "curves", "curves.csv", ["plot_runs.py", "--out", "made.png", "a=curves.csv"], None
    yield "curves", "run/metrics.jsonl", ["plot_runs.py", "--out", "made.png", "run"], None
    if torch:
        for file in ("state.pth", "export/add_cifar_resnet8.safetensors"):
            words = ["import_pytorch.py", "--state", file, "--model", "add_cifar_resnet8"]
            words += ["--option", "width_multiplier=1", "--out", "made.params"]
            yield "state", file, words, None
