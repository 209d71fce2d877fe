"""Disks that fill up while something is written."""

import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess

from tqdm import tqdm

from .judge import judge, run
from .workspace import DIGITS, SHORT


def campaign(folder, count, seed, tally):
    """Half of the cases on a small file system, if one can be mounted; the rest with a limit."""
    rng = random.Random(f"disks {seed}")
    work = folder / "work"
    cases = {
        "train": (["train_cifar.py", *DIGITS, *SHORT, "--out", "DISK/made"], "last.params"),
        "export": (["export.py", "--run", "run", "--out", "DISK/made"], "export.json"),
        "pack": (
            ["prepare_imagenet.py", "--out", "DISK/made"]
            + ["--train", "photos/train", "--val", "photos/val"],
            "train.rec",
        ),
        "explain": (["explain.py", "--run", "run", "photo.png", "--out", "DISK/made.png"], None),
    }
    sizes = {}
    for number in tqdm(range(count), unit="disk", leave=False, disable=None):
        name = list(cases)[number % len(cases)]
        words, file = cases[name]
        if name not in sizes:
            whole = folder / f"disk-{name}"
            whole.mkdir()
            ended = run(_at(words, whole), work, seconds=300)
            assert ended.status == 0, ended.err
            sizes[name] = _size(whole), _digest(whole, file)
        size, digest = sizes[name]
        with _small_disk(folder / "disk", int(size * rng.uniform(0.02, 0.95)), number % 2) as (
            disk,
            before,
            way,
        ):
            ended = run(_at(words, disk), work, seconds=300, before=before)
            verdict, why = judge(ended, lambda: _digest(disk, file) == digest)  # noqa: B023
            if verdict == "one line" and "space" not in why and "large" not in why:
                verdict, why = "wanting", f"the line does not say that the disk is full: {why}"
            tally.add(f"full disk, {way}", f"{number}: {name}", verdict, why)
            with contextlib.suppress(OSError):
                _enlarge(disk, way)
            again = _at(words, disk)
            if name == "train" and (disk / "made/config.yaml").exists():
                again = ["train_cifar.py", "--resume", str(disk / "made")]
                if (disk / "made/result.json").exists():
                    continue
            ended = run(again, work, seconds=300)
            verdict, why = judge(ended, lambda: _digest(disk, file) == digest)  # noqa: B023
            if verdict == "one line":
                verdict, why = "wanting", f"with room again: {why}"
            tally.add("room again", f"{number}: {name}", verdict, why)


def _at(words, disk):
    return [str(word).replace("DISK", str(disk)) for word in words]


def _size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _digest(folder, file):
    if file is None:
        return (folder / "made.png").exists()
    path = folder / "made" / file
    if file == "export.json":
        return json.loads(path.read_text())["files"]
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def _small_disk(path, size, mounted):
    """``(folder, what a child must call first, way)``."""
    path.mkdir()
    way = "limit of a file's size"
    if mounted and _mount(path, size):
        way = "small file system"

    def before():
        if way != "small file system":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (max(size, 1), max(size, 1)))

    try:
        yield path, before, way
    finally:
        if way == "small file system":
            subprocess.run(["umount", str(path)], check=True)
        shutil.rmtree(path)


def _mount(path, size):
    command = ["mount", "-t", "tmpfs", "-o", f"size={max(size, 1 << 12)}", "tmpfs", str(path)]
    with contextlib.suppress(OSError):
        return os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    return False


def _enlarge(path, way):
    if way == "small file system":
        subprocess.run(["mount", "-o", "remount,size=1g", str(path)], check=True)
