"""Run code in its own process, because it may fail, die silently, or hang."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Outcome:
    output: str
    problem: Optional[str]  # one line; None: no problem


def run_python(code, *arguments, limit, **environment):
    """Run ``python -c code arguments`` for at most ``limit`` seconds."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
            env={**os.environ, **environment},
        )
    except subprocess.TimeoutExpired:
        return Outcome("", f"no answer within {limit:g} seconds")
    lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
    if done.returncode < 0:
        return Outcome(done.stdout, f"ended by {signal.Signals(-done.returncode).name}")
    problem = lines[-1].replace("error: ", "", 1) if done.returncode else None
    return Outcome(done.stdout, problem)
