"""A run that is stopped and resumed ends as one that is not, to the last bit."""

import json
import os
import signal
import subprocess
import sys
import time

import mxnet as mx
import numpy as np
import pytest

from openaff import UserError
from openaff.training import session
from openaff.training.checkpoint import LAST, PREVIOUS
from openaff.training.config import load_config
from openaff.training.session import resume
from openaff.utils.devices import parse_devices

# 11 steps an epoch; every kind of randomness in it.
OVERRIDES = [
    "epochs=2",
    "data.batch_size=128",
    "data.autoaugment=cifar10",
    "data.mixup_alpha=1.0",
    "data.mixup_off_epochs=1",
    "optimizer.label_smoothing=0.1",
    "checkpoint_steps=4",
]


def start(root, *arguments):
    script = root / "scripts/train_cifar.py"
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(root, out):
    config = root / "configs/digits/add_resnet8.yaml"
    return start(root, "--config", config, "--out", out, *OVERRIDES)


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """The run without interruption."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    config = load_config(root / "configs/digits/add_resnet8.yaml", OVERRIDES)
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


def test_sigterm_finishes_the_step_saves_and_exits_with_75(root, tmp_path, whole):
    folder = tmp_path / "run"
    process = train(root, folder)
    wait_for((folder / PREVIOUS).exists, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "SIGTERM: stopped after step" in err and f"--resume {folder}" in err
    assert "Traceback" not in err
    finish(start(root, "--resume", folder))
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
