"""How a result came about: versions, machine, commit, command, date."""

import os
import pathlib
import platform
import subprocess
from datetime import datetime, timezone

import mxnet as mx
import numpy as np

from .program import command


def environment():
    """Versions and machine, for readers who want to repeat a run."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "mxnet": mx.__version__,
        "numpy": np.__version__,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": _threads(),
        "commit": _commit(),
    }


def provenance():
    """The facts that every result file states, whatever the run."""
    from .. import __version__

    return {
        "versions": {
            "openaff": __version__,
            "mxnet": mx.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "threads": _threads(),
        "commit": _commit(),
        "command": command(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def processor():
    """The processor's name, as far as the system says it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.machine()


def _threads():
    """MXNet's threads on the CPU: another number rounds differently.  None: not set."""
    return os.environ.get("OMP_NUM_THREADS")


def _commit():
    """The commit of this source tree, with a + if it has uncommitted changes.

    None where openaff is installed: the repository around it, if any, is somebody else's.
    """
    tree = pathlib.Path(__file__).resolve().parents[2]
    root = _git(tree, "rev-parse", "--show-toplevel")
    if root is None or pathlib.Path(root).resolve() != tree:
        return None
    return _git(tree, "describe", "--always", "--dirty=+", "--exclude=*")


def _git(folder, *arguments):
    """What git prints in a folder, or None where it fails."""
    # A git hook sets such variables, and they name the hook's repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=str(folder),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
