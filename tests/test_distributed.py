import os
import signal
import subprocess
import sys
import time

import mxnet as mx
import numpy as np
import pytest
from distributed_worker import train
from helpers import structural_params

from openaff import UserError
from openaff.training.distributed import Workers
from openaff.training.launch import launch

WORKER = os.path.join(os.path.dirname(__file__), "distributed_worker.py")


@pytest.fixture
def launcher(root):
    def run(*arguments, wait=True):
        process = subprocess.Popen(
            [sys.executable, str(root / "scripts/launch_local.py"), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if not wait:
            return process
        output = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, *output)

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


@pytest.mark.long
def test_a_run_by_two_workers_stops_goes_on_and_writes_one_folder(launcher, root, tmp_path):
    folder = tmp_path / "run"
    script = [sys.executable, root / "scripts/train_cifar.py"]
    command = [*script, "--config", "digits/add_resnet8", "--out", folder]
    command += ["kvstore=dist_sync", "epochs=2", "schedule.warmup=0", "data.batch_size=128"]
    started = launcher("-n", 2, "--", *command, wait=False)
    limit = time.monotonic() + 60
    while not (folder / "last.ckpt").exists() and time.monotonic() < limit:
        time.sleep(0.01)
    started.send_signal(signal.SIGTERM)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 75, errors
    assert errors.count("; go on, started in the same way, with: python ") == 2
    run = launcher("-n", 2, "--", *script, "--resume", folder)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("epoch 2/2") == run.stdout.count("written to") == 1
    assert '"workers": 2' in (folder / "result.json").read_text()
    assert "batch 256" in (folder / "report.md").read_text()


def test_when_one_worker_dies_all_end_and_its_error_is_shown(launcher, tmp_path):
    run = launcher("-n", 2, "--", sys.executable, WORKER, tmp_path, "fail")
    assert run.returncode == 1
    assert "worker 1 gives up" in run.stderr and "their exit statuses: " in run.stderr


def test_no_process_outlives_a_killed_launcher(root, tmp_path):
    """Neither the scheduler nor the server nor a worker, whatever they do."""
    code = "import os, sys, time; open(f'{sys.argv[1]}/{os.getpid()}', 'w'); time.sleep(60)"
    program = [sys.executable, "-c", code, str(tmp_path)]
    launch = (
        "import sys; from openaff.training import launch as module; "
        "start, module._start = module._start, lambda _, env: start(sys.argv[1:], env); "
        "module.launch(sys.argv[1:], 2)"
    )
    launcher = subprocess.Popen([sys.executable, "-c", launch, *program], cwd=str(root))

    def wait_until(done):
        limit = time.monotonic() + 60
        while not done():
            assert time.monotonic() < limit
            time.sleep(0.01)

    wait_until(lambda: len(list(tmp_path.iterdir())) == 4)
    launcher.kill()
    launcher.wait()
    pids = [int(path.name) for path in tmp_path.iterdir()]
    wait_until(lambda: not any(runs(pid) for pid in pids))


def runs(pid):
    """Whether a process runs; one that has ended may wait for whoever reaps orphans."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_launcher_errors(call):
    for arguments, message in (
        ([], "write the program to run after --"),
        (["-n", "0", "--", "true"], "-n must be a positive integer"),
        (["--", "./no-such-program"], "cannot start ./no-such-program"),
    ):
        with pytest.raises(UserError, match=message):
            call("launch", *arguments)


def test_a_program_that_does_not_train_cannot_hang_the_launcher():
    assert launch([sys.executable, "-c", "raise SystemExit(7)"], 2) == 7


def test_the_status_is_that_of_the_first_failure_and_not_of_a_stop(tmp_path):
    """75 asks a scheduler to start the job again; a crash would come again."""
    folder = tmp_path / "first"
    for script in (
        "if mkdir $0 2>/dev/null; then sleep 0.7; exit 75; else exit 3; fi",
        "if mkdir $0 2>/dev/null; then exit 75; else exit 3; fi",
    ):
        assert launch(["sh", "-c", script, str(folder)], 2) == 3
        folder.rmdir()
    assert launch(["sh", "-c", "exit 75"], 2) == 75


def test_workers_errors(monkeypatch):
    for name in ("ROLE", "PS_ROOT_URI", "PS_ROOT_PORT", "NUM_WORKER", "NUM_SERVER"):
        monkeypatch.setenv(f"DMLC_{name}", "abc")
    for port in ("abc", "0", "70000"):
        monkeypatch.setenv("DMLC_PS_ROOT_PORT", port)
        with pytest.raises(UserError, match=f"DMLC_PS_ROOT_PORT={port}: it must be a port, 1 to"):
            Workers("dist_sync")
    monkeypatch.delenv("DMLC_ROLE")
    with pytest.raises(UserError, match="kvstore=dist_sync .* DMLC_ROLE is not set"):
        Workers("dist_sync")
    monkeypatch.setenv("DMLC_ROLE", "worker")
    with pytest.raises(UserError, match="set kvstore=dist_sync"):
        Workers()
