"""The whole way of somebody who has no clone: a wheel, installed elsewhere, in an empty folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from openaff import __version__
from openaff.utils.packaged import config_names


def python(*words, **options):
    """What a Python process prints: to stdout, and to stderr."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    """The wheel of this source tree; nothing is written into the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root / "openaff", folder / "openaff", ignore=ignored)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    python("-W", "ignore", "-c", build, cwd=folder)
    (path,) = (folder / "dist").iterdir()
    return path


@pytest.fixture(scope="module")
def openaff(wheel, tmp_path_factory):
    """Call the installed command from an empty folder: what it prints to stdout."""
    target = tmp_path_factory.mktemp("installed")
    options = ("--no-deps", "--no-index", "--no-compile", "--quiet", "--target", target)
    python("-m", "pip", "--disable-pip-version-check", "install", *options, wheel)
    empty = tmp_path_factory.mktemp("empty")
    environment = {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}
    where = "import openaff; from openaff.utils.packaged import clone; "
    where += "print(clone(), openaff.__file__)"
    assert python("-c", where, cwd=empty, env=environment)[0].startswith(f"None {target}")

    def call(*words):
        printed, noise = python(target / "bin" / "openaff", *words, cwd=empty, env=environment)
        assert noise in ("", "engine: mxnet, f32\n")  # none of MXNet's lines
        return printed

    call.folder = empty
    return call


def test_a_wheel_says_what_it_is_and_has(openaff):
    assert openaff("--version").startswith(f"openaff {__version__} (mxnet")
    listed = [line.split()[0] for line in openaff("configs").splitlines()]
    assert listed == config_names() and len(listed) > 30
    assert "labels: coarse" in openaff("configs", "paper/resnet")


def test_a_wheel_has_every_file(wheel, root):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("openaff/")}
    tree = [path for path in (root / "openaff").rglob("*") if "__pycache__" not in path.parts]
    assert names == {path.relative_to(root).as_posix() for path in tree if path.is_file()}


def test_a_wheel_trains_exports_and_predicts(openaff):
    settings = ("epochs=1", "schedule.warmup=0", "data.batch_size=240")
    printed = openaff("train", "digits/add_resnet8", "--devices", "cpu:2", *settings)
    assert "epoch 1/1" in printed and "labels: 10 digits" in printed
    assert printed.endswith("written to runs/add_resnet8\n")
    record = (openaff.folder / "runs/add_resnet8/report.md").read_text()
    assert "`openaff train digits/add_resnet8 --devices cpu:2 epochs=1 " in record
    export = ("--run", "runs/add_resnet8", "--out", "exports/digits", "--format", "symbol")
    assert "largest relative difference" in openaff("export", *export)
    Image.fromarray(np.full((32, 32, 3), 77, "uint8")).save(openaff.folder / "photo.png")
    line = openaff("predict", "--export", "exports/digits", "photo.png", "--top", "1")
    assert line.startswith("photo.png: ")
    made = sorted(path.name for path in pathlib.Path(openaff.folder).iterdir())
    assert made == ["exports", "photo.png", "runs"]
