"""Every command of the README and the pages runs: on made-up data, and made small."""

import pathlib
import re
import runpy
import shlex
import shutil
import sys

import pytest
from helpers import fewer_images, write_cifar100
from mask_files import sample, write_camvid, write_coco, write_masks
from photo_files import official_tars, write_folder
from PIL import Image
from test_docs import PAGES, ROOT

from openaff import create_model
from openaff.commands import launch as launch_command
from openaff.commands import main
from openaff.data import imagenet
from openaff.doctor import __main__ as doctor
from openaff.training import benchmark as training_benchmark

SMALL = {  # what makes a command small, by what it has
    "cifar/aff_resnet8": ["epochs=1"],
    "digits/": ["epochs=1", "schedule.warmup=0"],
    "cifar/2020-11/": [
        "data.batch_size=16",
        "model.options.width_multiplier=1",
        "epochs=2",
        "schedule.milestones=[1]",
        "data.mixup_off_epochs=0",
    ],
    "imagenet/smoke": ["data.image_size=32", "epochs=1", "data.mixup_off_epochs=0"]
    + ["schedule.warmup=0"],
    "imagenet/2020-11/": [
        "model.name=iaff_resnet18",
        "data.batch_size=2",
        "data.image_size=32",
        "epochs=1",
        "schedule.warmup=0",
        "optimizer.lr=0.001",  # batch norms of two images
        "data.mixup_off_epochs=0",
        "precision=float32",
    ],
    "segmentation/scenes": ["epochs=1", "data.batch_size=20"],
    **dict.fromkeys(
        ("camvid_fpn", "stopsign_fpn", "sirst_fpn"),
        ["epochs=1", "data.batch_size=2", "model.options.width_multiplier=1"]
        + ["data.image_size=32", "data.crop_size=32"],
    ),
    "finetune/": ["epochs=1", "data.batch_size=4"],
    "benchmark.py": ["--turns", "1"],
    "openaff benchmark": ["--turns", "1"],
    "examples/detect_with_aff.py": ["--steps", "1", "--images", "2", "--size", "64"],
    "reproduce_tables.py": ["--results", "results-of-the-test"],
    "openaff tables": ["--results", "results-of-the-test"],
}
UNTESTED = ("make ", "docker ", ". ")  # shell and installation: continuous integration makes


def commands(text):
    """The command lines of the blocks without a language."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.S | re.M):
        if language:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith(UNTESTED):
                yield line


@pytest.fixture(scope="module")
def workspace(root, tmp_path_factory):
    """A folder with all that the pages' commands name; ``DIR`` is set by what they prepare."""
    folder = tmp_path_factory.mktemp("workspace")
    for name in ("scripts", "examples", "results", "docs"):
        (folder / name).symlink_to(root / name)
    with pytest.MonkeyPatch.context() as patch:
        write_cifar100(folder / "cifar100", patch, images=128)
        for name, train in (("cifar100", 128), ("digits", 128), ("scenes", 20)):
            fewer_images(patch, name, train, test=16)
        official_tars(folder)
        for name in ("train.tar", "val.tar"):
            (folder / name).rename(folder / f"ILSVRC2012_img_{name}")
        (folder / "devkit.tar.gz").rename(folder / "ILSVRC2012_devkit_t12.tar.gz")
        shutil.rmtree(folder / "photos")
        for split in ("train", "val"):
            write_folder(folder / "photos" / split)
        (folder / "results-of-the-test").mkdir()
        write_camvid(folder / "camvid")
        write_masks(folder / "stopsign_fpn", 8, classes=2, names=["background", "stop sign"])
        write_sirst(folder / "sirst")
        Image.new("RGB", (32, 32), "red").save(folder / "photo.png")
        Image.new("RGB", (64, 48), "grey").save(folder / "street.png")
        (folder / "published.csv").write_text("epoch,test_accuracy\n1,0.5\n2,0.6\n")
        patch.setattr(imagenet, "CLASSES", 3)
        small = [("aff", "cifar_resnet8", {"width_multiplier": 1}, 2, (32, 32))]
        patch.setattr(training_benchmark, "NETWORKS", small)
        patch.chdir(folder)
        patch.setattr("sys.argv", [])
        lines = commands((root / "README.md").read_text())
        training = next(line for line in lines if line.startswith("openaff train"))
        run(training, {"cifar": "cifar100"})  # runs/aff8, which several pages name
        yield folder


def write_sirst(folder):
    """The authors' data set in small: lists in ``idx_427``, and ``Misc_111``."""
    for name in ("images", "masks", "idx_427"):
        (folder / name).mkdir(parents=True)
    for index, split in enumerate(("train", "train", "val", "test")):
        name = "Misc_111" if index == 0 else f"Misc_{index}"
        image, mask = sample(index, classes=2)
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        mask = mask[1:] if name == "Misc_111" else mask  # of another size
        Image.fromarray(255 * mask).save(folder / "masks" / f"{name}_pixels0.png")
        with open(folder / "idx_427" / f"{split}.txt", "a") as out:
            out.write(f"{name}\n")


def parameters_for(line):
    """A file of some parameters for the network that ``FILE`` stands for in a command."""
    name, classes = ("aff_resnet50", 1000) if "imagenet/" in line else ("aff_cifar_resnet32", 100)
    path = pathlib.Path(f"{name}.params")
    if not path.exists():
        net = create_model(name, num_classes=classes)
        net.initialize()
        net.save_parameters(str(path))
    return str(path)


def run(line, places):
    """Run a command line in this process."""
    if "--out" in line:
        out = re.search(r"--out (\S+)", line).group(1)
        shutil.rmtree(out, ignore_errors=True)
    if "--resume" in line:  # of a run that has ended: as if it had been stopped just before
        (pathlib.Path(re.search(r"--resume (\S+)", line).group(1)) / "result.json").unlink()
    if "prepare" in line and "imagenet" in line:
        places["imagenet"] = f"packed{line.count('--devkit')}"
    places["finetune"] = "photos"
    kinds = ("finetune", "imagenet", "coco", "detect", "camvid", "stopsign_fpn", "sirst")
    kind = next((kind for kind in kinds if kind in line), "cifar")
    line = line.replace("DIR", places.get(kind, kind))
    line = re.sub(r"\bFILE\b", lambda _: parameters_for(line), line)
    line = re.sub(r"gpu:[\d,]+", "cpu:2", line)
    words = shlex.split(line)
    if "--resume" not in words and "--" not in words:
        words += [word for part, more in SMALL.items() if part in line for word in more]
    sys.argv = words if words[0] == "openaff" else words[1:]
    if words[1] in ("doctor", "-m"):  # which has tests of its own
        assert words[0] == "openaff" or words[2] == "openaff.doctor"
        sys.argv = ["openaff", "doctor", *words[3 - (words[0] == "openaff") :]]
        doctor.parse_args()
    elif "launch" in words[1]:  # which has tests of its own, too
        inner = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                launch_command, "launch", lambda command, *counts: inner.extend(command) or 0
            )
            with pytest.raises(SystemExit, match="^0$"):
                begin(words)
        run(shlex.join(inner).replace(" kvstore=dist_sync", ""), places)
    else:
        begin(words)


def begin(words):
    if words[0] == "openaff":
        main()
    else:
        assert words[0] == "python"
        runpy.run_path(words[1], run_name="__main__")


WITH_COMMANDS = [
    page for page in PAGES if page != "docs/tables.md" and list(commands((ROOT / page).read_text()))
]


LONG = ("docs/imagenet.md", "docs/segmentation.md", "docs/training.md")  # many trainings


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.long] if page in LONG else [])
        for page in WITH_COMMANDS
    ],
)
def test_commands_run(page, root, workspace, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", sys.argv)
    places = {"cifar": "cifar100", "imagenet": "packed0", "coco": "coco", "detect": "coco"}
    text = (root / page).read_text()
    if "prepare_coco.py" in text or "prepare-coco" in text or "detect_with_aff.py" in text:
        pytest.importorskip("pycocotools", reason="needs the extra [coco]")
        shutil.rmtree(workspace / "coco", ignore_errors=True)
        write_coco(workspace / "coco")
    if "pytorch.py" in text or "-pytorch" in text:
        torch = pytest.importorskip("torch", reason="needs the extra [torch]")
        pytest.importorskip("safetensors", reason="needs the extra [torch]")
        from openaff.deploy.pytorch.network import IAFF

        torch.save(IAFF(8).state_dict(), "port.pth")
        shutil.rmtree("exports/aff8", ignore_errors=True)
    for line in commands(text):
        try:
            run(line, places)
        except BaseException as error:
            raise AssertionError(f"{line}\n{type(error).__name__}: {error}") from error
