import os
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest
from distributed_worker import train
from helpers import structural_params

from openaff import UserError
from openaff.training.launch import launch
from openaff.training.workers import Workers

WORKER = os.path.join(os.path.dirname(__file__), "distributed_worker.py")


@pytest.fixture
def launcher(root):
    def run(*arguments, timeout=120):
        return subprocess.run(
            [sys.executable, str(root / "scripts/launch_local.py"), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


def test_two_workers_end_equal_and_equal_to_one_on_the_union_batch(launcher, tmp_path):
    run = launcher("-n", 2, "--", sys.executable, WORKER, tmp_path)
    assert run.returncode == 0, run.stderr
    alone, means = train(None, 16)
    loss, steps = run.stdout.split()
    assert int(steps) == alone.step == 3
    assert float(loss) == pytest.approx(means["loss"], rel=1e-5)
    first, second = (mx.nd.load(str(tmp_path / f"{rank}.params")) for rank in (0, 1))
    for name, param in structural_params(alone.net).items():
        np.testing.assert_array_equal(first[name].asnumpy(), second[name].asnumpy())
        np.testing.assert_allclose(first[name].asnumpy(), param.data().asnumpy(), atol=1e-6)


def test_a_run_by_two_workers_writes_one_folder(launcher, root, tmp_path):
    command = [sys.executable, root / "scripts/train_cifar.py", "--out", tmp_path / "run"]
    command += ["--config", root / "configs/digits/add_resnet8.yaml"]
    settings = ["kvstore=dist_sync", "epochs=1", "schedule.warmup=0", "data.batch_size=256"]
    run = launcher("-n", 2, "--", *command, *settings)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("epoch 1/1") == run.stdout.count("written to") == 1
    assert '"workers": 2' in (tmp_path / "run" / "result.json").read_text()
    assert "batch 512" in (tmp_path / "run" / "report.md").read_text()


def test_when_one_worker_dies_all_end_and_its_error_is_shown(launcher, tmp_path):
    run = launcher("-n", 2, "--", sys.executable, WORKER, tmp_path, "fail")
    assert run.returncode == 1
    assert "worker 1 gives up" in run.stderr and "their exit statuses: " in run.stderr


def test_launcher_errors(launcher):
    for arguments, message in (
        ([], "name the program to run after --"),
        (["-n", 0, "--", "true"], "-n must be a positive integer"),
        (["--", "./no-such-program"], "cannot start ./no-such-program"),
    ):
        run = launcher(*arguments)
        assert run.returncode == 2 and message in run.stderr
        assert len(run.stderr.strip().splitlines()) == 1


def test_a_program_that_does_not_train_cannot_hang_the_launcher():
    assert launch([sys.executable, "-c", "raise SystemExit(7)"], 2) == 7


def test_workers_errors(monkeypatch):
    with pytest.raises(UserError, match="kvstore=dist_sync .* DMLC_ROLE is not set"):
        Workers("dist_sync")
    monkeypatch.setenv("DMLC_ROLE", "worker")
    with pytest.raises(UserError, match="set kvstore=dist_sync"):
        Workers()
