"""What the campaign damages: a folder with one small file of every kind that openaff reads."""

import json
import os
import shutil

import numpy as np
from PIL import Image

from openaff.utils.packaged import config_path

from ..mask_files import write_coco
from ..photo_files import official_tars
from .judge import ROOT, run

DIGITS = ["--config", "digits/add_resnet8"]
SHORT = ["epochs=1", "schedule.warmup=0"]
SMALL = ["model.name=add_cifar_resnet8", "data.image_size=32", "data.batch_size=4"]
PHOTOS = ["--config", "imagenet/smoke", *SMALL, *SHORT]
PHOTOS += [
    "data.mixup_alpha=0",
    "data.mixup_off_epochs=null",
    "model.options={width_multiplier: 1}",
]
SCENES = ["--config", "segmentation/scenes_fpn", "epochs=1"]


def torch_is_there():
    try:
        import safetensors  # noqa: F401
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def photographs(folder, per_class=4):
    """``train`` and ``val`` with two classes of made-up photographs."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number, name in enumerate(("dark", "light")):
            (folder / split / name).mkdir(parents=True)
            for index in range(per_class):
                pixels = rng.integers(0, 100, (40, 48, 3)) + 130 * number
                image = Image.fromarray(pixels.astype("uint8"))
                image.save(folder / split / name / f"{index}.jpg", quality=95)


def masks(folder, count=6):
    """``images/N.png`` with ``masks/N.png`` of three classes, and ``classes.txt``."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        classes = rng.integers(0, 3, (8, 8)).repeat(4, 0).repeat(4, 1).astype("uint8")
        image = np.stack([60 * classes, classes, classes], axis=-1).astype("uint8")
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
        Image.fromarray(classes).save(folder / "masks" / f"{index}.png")
    (folder / "classes.txt").write_text("one\ntwo\nthree\n")


def make(folder):
    """Fill a new folder: runs, exports, records, photographs, masks, archives, results, states.

    Raises
    ------
    SystemExit
        One of the commands failed, which no damage explains.
    """
    folder.mkdir(parents=True, exist_ok=True)
    photographs(folder / "photos")
    masks(folder / "masks")
    write_coco(folder / "coco")
    (folder / "official").mkdir()
    official_tars(folder / "official")
    shutil.copytree(ROOT / "results/reduced", folder / "results/reduced")
    Image.fromarray(np.full((32, 32, 3), 77, "uint8")).save(folder / "photo.png")
    torch = torch_is_there()
    formats = "symbol,onnx" + ",pytorch" * torch
    commands = [
        ["train_cifar.py", *DIGITS, *SHORT, "--out", "run"],
        ["export.py", "--run", "run", "--out", "export", "--format", formats, "--int8"],
        ["prepare_imagenet.py", "--out", "packed"]
        + ["--train", "photos/train", "--val", "photos/val"],
        [
            "train_imagenet.py",
            *PHOTOS,
            "data.name=images",
            "data.root=packed",
            "--out",
            "packed-run",
        ],
        [
            "train_segmentation.py",
            *SCENES,
            "data.name=masks",
            "data.root=masks",
            "loss.class_weights=null",
        ]
        + ["data.crop_size=32", "data.image_size=32", "data.batch_size=2", "--out", "masks-run"],
    ]
    for words in commands:
        ended = run(words, folder, seconds=300)
        if ended.problem() or ended.status:
            raise SystemExit(f"the workspace cannot be made: {words}: {ended.out}{ended.err}")
    shutil.copytree(folder / "run", folder / "stopped")
    (folder / "stopped/result.json").unlink()  # as if stopped just before the end
    rows = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    keys = [key for key in rows[0] if not isinstance(rows[0][key], (dict, list))]
    lines = [",".join(keys), *(",".join(str(row.get(key, "")) for key in keys) for row in rows)]
    (folder / "curves.csv").write_text("\n".join(lines) + "\n")
    shutil.copy(config_path("digits/add_resnet8"), folder / "recipe.yaml")
    if torch:
        _write_pickle(folder)
    return torch


def _write_pickle(folder):
    """``state.pth``, in a fork, so that this process never starts PyTorch's threads."""
    child = os.fork()
    if not child:
        import torch
        from safetensors.torch import load_file

        torch.save(
            load_file(str(folder / "export/add_cifar_resnet8.safetensors")), folder / "state.pth"
        )
        os._exit(0)
    os.waitpid(child, 0)
