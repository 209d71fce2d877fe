"""Where a result comes from: versions, machine, commit, command, date."""

import os
import pathlib
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone

import mxnet as mx
import numpy as np


def environment():
    """Versions and machine, for a reader who wants to repeat a run."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "mxnet": mx.__version__,
        "numpy": np.__version__,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": _threads(),
        "commit": _commit(),
    }


def provenance():
    """The part of a result file that is the same for every kind of run."""
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
        "command": shlex.join([pathlib.Path(sys.argv[0]).name] + sys.argv[1:]),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def _processor():
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.machine()


def _threads():
    """Of MXNet on the CPU, where another number rounds otherwise; None: it was not set."""
    return os.environ.get("OMP_NUM_THREADS")


def _commit():
    """The checked-out commit of this source tree, with a + where it has changes."""
    folder = pathlib.Path(__file__).parent
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=str(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
