"""The scripts as a user runs them: exit status, one clear line, files."""

import subprocess
import sys

import pytest


@pytest.fixture
def script(root):
    def run(name, *arguments):
        return subprocess.run(
            [sys.executable, str(root / "scripts" / name), *map(str, arguments)],
            capture_output=True, text=True,
        )  # fmt: skip

    return run


def fails_with(result, message):
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in result.stderr


def test_train_then_export(script, root, tmp_path):
    config = root / "configs/digits/add_resnet8.yaml"
    arguments = ("--config", config, "--out", tmp_path / "run", "--devices", "cpu:2")
    trained = script("train_cifar.py", *arguments, "epochs=1", "schedule.warmup=0")
    assert trained.returncode == 0, trained.stderr
    assert "epoch 1/1" in trained.stdout and "labels: 10 digits" in trained.stdout
    exported = script("export.py", "--run", tmp_path / "run", "--out", tmp_path / "export")
    assert exported.returncode == 0, exported.stderr
    assert "largest relative difference" in exported.stdout
    assert len(list((tmp_path / "export").iterdir())) == 5
    fails_with(script("train_cifar.py", *arguments), "exists")


def test_train_errors(script, root, tmp_path):
    config = root / "configs/cifar/aff_resnet8.yaml"
    out = ("--out", tmp_path / "run")
    fails_with(script("train_cifar.py", "--config", tmp_path / "no.yaml", *out), "cannot read")
    fails_with(script("train_cifar.py", "--config", config, *out, "epoch=3"), "'epochs'")
    fails_with(script("train_cifar.py", "--config", config, *out, "--devices", "gpu:7"), "gpu:7")
    fails_with(script("export.py", "--run", tmp_path, *out), "no folder of a finished run")
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_command_line_are_one_line(script):
    result = script("summary.py")
    fails_with(result, "arguments are required: MODEL; see --help")
    assert len(result.stderr.splitlines()) == 1
