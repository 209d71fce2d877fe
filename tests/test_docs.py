"""The pages say nothing that is still to be filled in, and their files exist."""

import os
import pathlib
import re
import subprocess

import numpy as np
import pytest
import yaml
from helpers import assert_close, fewer_images
from PIL import Image

from openaff.data import load_dataset
from openaff.deploy.export import export_folder
from openaff.deploy.subject import run_subject
from openaff.training.config import DataConfig, load_config, to_yaml
from openaff.training.session import train
from openaff.utils.devices import parse_devices
from openaff.utils.packaged import config_path

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = ["README.md"] + sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_no_placeholder_is_left(root, page):
    assert not re.search(r"@[A-Z_]+@|^[A-Z]+$", (root / page).read_text(), re.M)


@pytest.mark.parametrize("page", PAGES)
def test_every_file_named_exists(root, page):
    text = (root / page).read_text()
    named = re.findall(r"(?:scripts|examples)/[\w/.-]+\.py", text)
    folder = (root / page).parent
    named += re.findall(r"openaff/configs/[\w/.-]+\.yaml", text)
    recipes = re.findall(r"(?<!openaff/)configs/[\w/.-]+\.yaml", text)
    recipes += re.findall(r"openaff train(?:-pytorch)? (?!mine)(\w+/[\w/.-]+)", text)
    for name in recipes:
        assert config_path(name).is_file()
    linked = [folder / link for link in re.findall(r"\]\(([\w./-]+)\)", text)]
    for path in [root / name for name in named] + linked:
        assert path.exists(), path


def test_the_recipe_explained_line_by_line_is_whole(root, tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", (root / "docs/training.md").read_text(), re.S)
    (tmp_path / "recipe.yaml").write_text(block)
    resolved = yaml.safe_load(to_yaml(load_config(tmp_path / "recipe.yaml")))

    def keys(values, prefix=""):
        for key, value in values.items():
            yield prefix + key
            if isinstance(value, dict):
                yield from keys(value, prefix + key + ".")

    # but for those that have no effect on what is shown
    without = {"schedule.power"} | {f"optimizer.{key}" for key in ("beta1", "beta2", "epsilon")}
    masks = ("scale_range", "crop_size", "lists", "train_split", "test_split", "skip")
    without |= {f"data.{key}" for key in masks}  # see docs/segmentation.md
    assert set(keys(resolved)) - set(keys(yaml.safe_load(block))) == without


def test_the_export_pages_snippets_run_and_agree(root, digits_run, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")
    export_folder(run_subject(digits_run[0]), tmp_path / "exports" / "aff8")
    Image.fromarray(load_dataset(DataConfig()).test.images[0]).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    page = (root / "docs/export.md").read_text()
    *snippets, opencv = re.findall(r"```python\n(.*?)```", page, re.S)
    first, plain, runtime = ({} for _ in snippets)
    for names, code in zip((first, plain, runtime), snippets):
        exec(code, names)  # noqa: S102
    expected = first["predict"].logits(["photo.png"])
    for logits in (plain["logits"], plain["same_logits"], runtime["logits"]):
        assert_close(logits, expected)
    pytest.importorskip("cv2", reason="needs opencv-python, which gluoncv brings")
    exec(opencv, runtime)  # noqa: S102
    assert_close(runtime["logits"], expected)


def test_the_page_on_extending_adds_a_data_set_a_task_and_a_network(
    root, tmp_path, monkeypatch, call
):
    page = (root / "docs/extending.md").read_text()
    for name, code in re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", page, re.S):
        (tmp_path / name).write_text(code)
        lines = len(list(filter(str.strip, code.splitlines())))
        assert name.endswith(".yaml") or f"| {lines} |" in page
    monkeypatch.chdir(tmp_path)
    result = train(load_config("stripes.yaml"), "runs/stripes", parse_devices("cpu"))
    assert result["last_exact_match"] > 0.9
    export_folder(run_subject("runs/stripes"), "exports/stripes", ("symbol",))
    Image.fromarray(np.zeros((16, 16, 3), "uint8")).save("photo.png")
    words = ("--export", "exports/stripes", "--imports", "multilabel", "photo.png")
    assert "photo.png: " in call("predict", *words).out


@pytest.mark.parametrize("page", PAGES)
def test_python_snippets_run(root, page, tmp_path, monkeypatch):
    if page.endswith(("export.md", "extending.md", "pytorch.md")):
        return  # in tests of their own, with the files that they need
    monkeypatch.chdir(tmp_path)  # for what they write
    (tmp_path / "docs").symlink_to(root / "docs")  # with sample pictures
    fewer_images(monkeypatch, "digits", 128, 16)
    for code in re.findall(r"```python\n(.*?)```", (root / page).read_text(), re.S):
        names = {}
        exec(code, names)  # noqa: S102
        if "Block" in names:
            block = names["Block"](8)
            block.initialize()
            assert block(names["mx"].nd.ones((2, 8, 5, 5))).shape == (2, 8, 5, 5)


def test_cluster_scripts_are_valid(root):
    page = (root / "docs/distributed.md").read_text()
    (slurm,) = re.findall(r"```bash\n(.*?)```", page, re.S)
    (manifest,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    (container,) = yaml.safe_load(manifest)["spec"]["template"]["spec"]["containers"]
    for script in (slurm, container["command"][-1]):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("status, again", [(0, False), (2, False), (75, True), (137, False)])
def test_a_slurm_job_is_queued_again_only_if_its_run_was_stopped(root, tmp_path, status, again):
    """A run that cannot begin would otherwise be queued for ever."""
    page = (root / "docs/distributed.md").read_text()
    (slurm,) = re.findall(r"```bash\n(.*?)```", page, re.S)
    programs = {
        "srun": f'[[ "$*" != *DMLC_ROLE=worker* ]] || exit {status}',
        "scontrol": 'echo "$@"',
        "python": "true",
    }
    for name, content in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{content}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_NNODES": "1"}
    environment["SLURM_JOB_ID"] = "7"
    command = ["bash", "-c", slurm]
    done = subprocess.run(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert done.stdout == ("requeue 7\n" if again else "")
