"""A run that is stopped and resumed ends as one that is not, to the last bit."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import mxnet as mx
import numpy as np
import pytest
from helpers import fewer_images

from openaff import UserError
from openaff.training import session
from openaff.training.checkpoint import LAST, PREVIOUS
from openaff.training.config import load_config, to_yaml
from openaff.training.run_folder import BEST, Run
from openaff.training.session import resume
from openaff.utils.devices import parse_devices

# 24 steps an epoch; every kind of randomness in it.
OVERRIDES = [
    "epochs=2",
    "data.batch_size=10",
    "data.autoaugment=cifar10",
    "data.mixup_alpha=1.0",
    "data.mixup_off_epochs=1",
    "optimizer.label_smoothing=0.1",
    "checkpoint_steps=4",
]


DIGITS = (240, 60)  # for training and testing


def train(root, out):
    """A program that trains."""
    command = [root / "tests/few_digits.py", *DIGITS, root / "scripts/train_cifar.py"]
    command += ["--config", "digits/add_resnet8", "--out", out, *OVERRIDES]
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module", autouse=True)
def few_digits():
    """In this process, too."""
    with pytest.MonkeyPatch.context() as patch:
        fewer_images(patch, "digits", *DIGITS)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run without interruption."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    config = load_config("digits/add_resnet8", OVERRIDES)
    session.train(config, folder, parse_devices("cpu"))
    return folder


def wait_for(condition, process):
    limit = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.01)


def metrics(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        for measured in ("images_per_second", "waited_for_data", "evaluation_seconds"):
            del row[measured]
    return rows


def assert_same_end(folder, whole):
    assert metrics(folder) == metrics(whole)
    for name in ("last.params", "best.params"):
        one, two = (mx.nd.load(str(each / name)) for each in (folder, whole))
        assert one.keys() == two.keys()
        for key in one:
            np.testing.assert_array_equal(one[key].asnumpy(), two[key].asnumpy(), err_msg=key)


def test_sigkill_in_the_middle_of_an_epoch(root, tmp_path, whole):
    folder = tmp_path / "run"
    process = train(root, folder)
    wait_for((folder / PREVIOUS).exists, process)  # after step 4 or later: not the first
    process.kill()
    process.communicate()
    resume(folder, parse_devices("cpu"))
    assert_same_end(folder, whole)


def test_sigterm_finishes_the_step_saves_and_exits_with_75(root, tmp_path, whole, call):
    folder = tmp_path / "run"
    process = train(root, folder)
    wait_for((folder / PREVIOUS).exists, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "SIGTERM: stopped after step" in err and f"--resume {folder}" in err
    assert "Traceback" not in err and not (folder / Run.LOCK).exists()
    call("train", "--resume", folder)  # what the message says
    assert_same_end(folder, whole)


def test_what_cannot_be_resumed(whole, tmp_path):
    devices = parse_devices("cpu")
    with pytest.raises(UserError, match="is finished: there is nothing to resume"):
        resume(whole, devices)
    with pytest.raises(UserError, match="is not a run folder"):
        resume(tmp_path, devices)


def test_a_damaged_checkpoint_names_the_one_before_which_can_be_taken(whole, tmp_path):
    devices = parse_devices("cpu")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.yaml", PREVIOUS, "metrics.jsonl"):
        os.link(whole / name, folder / name)
    (folder / LAST).write_bytes((whole / LAST).read_bytes()[:1000])
    with pytest.raises(UserError, match=f"{LAST} is damaged.*{PREVIOUS} beside it"):
        resume(folder, devices)
    resume(folder, devices, PREVIOUS)
    assert_same_end(folder, whole)


# --- Settings of a run that goes on ---------------------------------------------------------------

SHORT = ["epochs=2", "data.batch_size=20", "schedule={name: step, milestones: [1], warmup: 0}"]


def short_run(folder, *overrides):
    """A new run of 3 steps an epoch."""
    config = load_config("digits/add_resnet8", [*SHORT, *overrides])
    with pytest.MonkeyPatch.context() as patch:
        fewer_images(patch, "digits", 60, 60)
        session.train(config, folder, parse_devices("cpu"))
    return folder


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    return short_run(tmp_path_factory.mktemp("ended") / "run")


@pytest.fixture
def run(ended, tmp_path, monkeypatch):
    """A finished run's folder."""
    fewer_images(monkeypatch, "digits", 60, 60)
    return pathlib.Path(shutil.copytree(ended, tmp_path / "run"))


@pytest.mark.parametrize(
    "forget, lack",
    [(lambda state: state["rows"][0].pop("test_accuracy"), r"rows\[0\].test_accuracy")]
    + [
        (lambda state, key=key: state.pop(key), key)
        for key in ("epoch", "batch", "seconds", "waited", "rows", "sums")
    ],
)
def test_a_checkpoint_that_lacks_something(run, forget, lack):
    """Its CRC is right, as of a run by an edition that measured something else."""
    with zipfile.ZipFile(run / LAST) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    state = json.loads(members["state.json"])
    forget(state)
    with zipfile.ZipFile(run / LAST, "w") as archive:
        for name, content in {**members, "state.json": json.dumps(state)}.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match=rf"{LAST} is damaged .*it has no {lack}"):
        resume(run, parse_devices("cpu"), overrides=["epochs=3"])


@pytest.mark.parametrize("held", [1, 2])
def test_the_best_epoch_is_the_one_that_best_params_holds(run, monkeypatch, held):
    """Epoch 2 is taken back, and scores less when it is repeated."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "best.params").write_bytes(b"weights of before")
    (run / BEST).write_text(json.dumps(rows[held - 1]))
    evaluate = session._Session._evaluate
    monkeypatch.setattr(
        session._Session, "_evaluate", lambda self: {**evaluate(self), "test_accuracy": 0.0}
    )
    (run / "result.json").unlink()
    result = resume(run, parse_devices("cpu"))
    assert result["best_epoch"] == json.loads((run / BEST).read_text())["epoch"] == held
    assert result["best_accuracy"] == (rows[0]["test_accuracy"] if held == 1 else 0)
    weights = (run / "best.params").read_bytes()
    assert weights == ((run / "last.params").read_bytes() if held == 2 else b"weights of before")


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, monkeypatch):
    """In one line, with the last good checkpoint, and without its lock.

    A run's objects live on in the error, as long as somebody, such as a notebook, keeps that.
    """
    fewer_images(monkeypatch, "digits", 60, 60)
    last = tmp_path / "run" / LAST
    for go in (
        lambda: short_run(tmp_path / "run", "optimizer.lr=1e30"),
        lambda: resume(tmp_path / "run", parse_devices("cpu")),
    ):
        message = r"^the loss is not finite at step [12] \(learning rate 1e\+30\); the last good "
        with pytest.raises(UserError, match=message + f"checkpoint is {last}: take a ") as caught:
            go()
        assert caught.tb and not (tmp_path / "run" / Run.LOCK).exists()
        with zipfile.ZipFile(last) as archive:
            archive.extract("net.params", tmp_path)
        for array in mx.nd.load(str(tmp_path / "net.params")).values():
            assert np.isfinite(array.asnumpy()).all()


def test_a_finished_run_trains_longer(run, tmp_path, call):
    """And ends as a run of that length, where the rate of the first steps is the same."""
    folder, longer = run, short_run(tmp_path / "longer", "epochs=4")
    printed = call("train", "--resume", folder, "epochs=4").out
    assert printed.startswith("add_cifar_resnet8 (width_multiplier=1), 77,850 parameters\n")
    assert " test images; batch " in printed
    assert re.search(f"^epochs [12] to 4, into {re.escape(str(folder))}$", printed, re.M)
    assert "epoch 4/4" in printed
    result = json.loads((folder / "result.json").read_text())
    assert result["command"] == f"openaff train --resume {folder} epochs=4"
    assert result["begun_by"] != result["command"] and result["seconds"] > 0
    assert_same_end(folder, longer)
    assert load_config(folder / "config.yaml").epochs == 4
    assert json.loads((folder / "result.json").read_text())["protocol"].startswith("4 epochs")
    assert not (folder / Run.LOCK).exists()
    for epochs, done in ((4, 4), (3, 4)):
        message = f"is finished: there is nothing to resume; .*epochs=N, more than its {done}"
        with pytest.raises(UserError, match=message):
            resume(folder, parse_devices("cpu"), overrides=[f"epochs={epochs}"])
    with pytest.raises(UserError, match="epochs=2 is too few: the run is in epoch 4"):
        (folder / "result.json").unlink()
        resume(folder, parse_devices("cpu"), overrides=["epochs=2"])


@pytest.mark.parametrize(
    "setting, before, other, remedy",
    [
        ("seed", "0", "1", "write 0 there again, or start another run"),
        ("optimizer.lr", "0.1", "0.2", "write 0.1 there again"),
        ("data.batch_size", "20", "30", "write 20 there again"),
        (
            "model.options",
            "{'width_multiplier': 1}",
            "{'width_multiplier': 2}",
            "write {'width_multiplier': 1} there",
        ),
        ("epochs", "2", "3", "or allow the change: --resume .*run epochs=3"),
        ("data.workers", "None", "0", "or allow the change: --resume .*run data.workers=0"),
    ],
)
def test_a_changed_setting_is_refused_by_name(run, setting, before, other, remedy):
    folder = run
    (folder / "result.json").unlink()
    config = load_config(folder / "config.yaml", [f"{setting}={other}"])
    (folder / "config.yaml").write_text(to_yaml(config))
    files = sorted(folder.iterdir())
    message = f"{setting} is {other} in .*config.yaml, but .*last.ckpt was written with {before}: "
    with pytest.raises(UserError, match=re.escape(message).replace(r"\.\*", ".*") + ".*") as caught:
        resume(folder, parse_devices("cpu"))
    assert re.search(remedy.replace("{", r"\{"), str(caught.value))
    assert "\n" not in str(caught.value) and sorted(folder.iterdir()) == files


def test_where_and_how_a_run_reads_can_change_and_nothing_else(run):
    folder = run
    (folder / "result.json").unlink()
    with pytest.raises(UserError, match="seed cannot change in a run that has begun, only epochs"):
        resume(folder, parse_devices("cpu"), overrides=["seed=1"])
    with pytest.raises(UserError, match="unknown key 'epoch'"):
        resume(folder, parse_devices("cpu"), overrides=["epoch=3"])
    resume(folder, parse_devices("cpu"), overrides=["data.workers=0"])
    assert load_config(folder / "config.yaml").data.workers == 0
    (folder / "result.json").unlink()
    resume(folder, parse_devices("cpu"))  # the new checkpoint has the new setting
