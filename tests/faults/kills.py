"""Trainings that are killed at random times must end as if they never had been."""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time

from tqdm import tqdm

from .judge import NOTHING, ROOT, WANTING
from .workspace import DIGITS, SCENES

TWO = ["epochs=2", "schedule.warmup=0"]
WAYS = {  # name -> (script, arguments)
    "one process": ("train_cifar.py", [*DIGITS, *TWO]),
    "two devices": ("train_cifar.py", [*DIGITS, *TWO, "--devices", "cpu:2"]),
    "two workers": ("train_cifar.py", [*DIGITS, *TWO, "kvstore=dist_sync"]),
    "segmentation": ("train_segmentation.py", [*SCENES, "model.name=add_fpn_resnet8"]),
}
TRIES = 12  # starts until a training that is killed again and again must have ended


def campaign(folder, count, seed, tally):
    """Kill each way of training in turn, once to three times, then let it end."""
    rng = random.Random(f"kills {seed}")
    names = list(WAYS)[: max(1, count)]
    whole = {}
    for number in tqdm(range(count), unit="kill", leave=False, disable=None):
        name = names[number % len(names)]
        if name not in whole:
            start = time.monotonic()
            ended, _ = _start(name, folder / f"whole-{names.index(name)}", None)
            assert ended == 0, f"{name}: the training that nobody kills fails"
            whole[name] = time.monotonic() - start, _digest(folder / f"whole-{names.index(name)}")
        seconds, digest = whole[name]
        out = folder / "killed"
        shutil.rmtree(out, ignore_errors=True)
        kills, why = [rng.uniform(0.02, 1) for _ in range(rng.choice((1, 1, 2)))], ""
        for _ in range(TRIES):
            status, errors = _start(name, out, kills.pop() * seconds if kills else None)
            if status is None and (out / "result.json").exists():
                status = 0  # killed after its last write
            if status == 0 or (status is not None and not kills):
                break
        verdict = NOTHING
        if status != 0:
            verdict, why = WANTING, f"status {status}: {errors.strip()[-300:]!r}"
        elif "Traceback" in errors:
            verdict, why = WANTING, "traceback"
        elif _digest(out) != digest:
            verdict, why = WANTING, "last.params differs from the uninterrupted training's"
        elif _leftovers(out):
            verdict, why = WANTING, f"left over: {', '.join(_leftovers(out))}"
        elif _alive(out):
            verdict, why = WANTING, "processes go on"
        tally.add(f"kill, {name}", f"{number}", verdict, why)


def _start(name, out, kill_after):
    """Begin, or go on, and maybe kill; ``(status, errors)``, status None where it was killed."""
    script, arguments = WAYS[name]
    words = [sys.executable, str(ROOT / "scripts" / script)]
    if (out / "config.yaml").exists():
        devices = arguments[arguments.index("--devices") :][:2] if "--devices" in arguments else []
        words += ["--resume", str(out), *devices]
    else:
        words += [*map(str, arguments), "--out", str(out)]
    if name == "two workers":
        launch = str(ROOT / "scripts/launch_local.py")
        words = [sys.executable, launch, "-n", "2", "--", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=kill_after if kill_after is not None else 300)
        return process.returncode, errors
    except subprocess.TimeoutExpired:
        # Only the one that was started: what it started must end by itself.
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if name == "two workers":
            time.sleep(2)
            if _alive(out):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                return 1, "orphans go on after SIGKILL of launch_local.py"
        return None, ""


def _alive(out):
    """Whether a process still has the run folder on its command line."""
    for path in os.listdir("/proc"):
        if path.isdigit() and int(path) != os.getpid():
            with contextlib.suppress(OSError):
                with open(f"/proc/{path}/cmdline", "rb") as file:
                    if os.fsencode(str(out)) in file.read().split(b"\0"):
                        return True
    return False


def _digest(out):
    path = out / "last.params"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _leftovers(out):
    """Files that no finished run has."""
    whole = {"whole": None, **{each.name: each for each in out.parent.glob("whole-*")}}
    usual = {_kind(file) for each in whole.values() if each for file in each.iterdir()}
    return sorted(file.name for file in out.iterdir() if _kind(file) not in usual)


def _kind(file):
    """Its name, without the time in those of event files, of which every resumption has one."""
    return file.name.split(".tfevents")[0]
