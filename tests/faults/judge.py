"""Run one case in a process of its own, and judge how it ended."""

import contextlib
import os
import pathlib
import re
import runpy
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Optional

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LINE, NOTHING, WANTING = "one line", "no effect", "wanting"


@dataclass
class Ended:
    """How a command ended."""

    status: Optional[int]  # None: a signal ended it, or its time
    signal: Optional[int]
    out: str
    err: str

    def problem(self):
        """Why no user should see this, or None."""
        if self.signal:
            return f"ended by {signal.Signals(self.signal).name}"
        if self.status is None:
            return "hangs"
        text = self.out + self.err
        if "Traceback (most recent call last)" in text:
            return "traceback"
        if self.status:
            errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
            lines = [line for line in self.err.splitlines() if line.strip()]
            if len(errors) != 1 or lines[-1] != errors[0]:
                return f"no one line: {self.err[-200:]!r}"
            if re.search(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]", errors[0]):
                return "control characters on the terminal"
        return None


def run(words, folder, seconds=600, before=None):
    """Run a script of ours, or ``-m`` a module, in a fork of this process; :class:`Ended`.

    Everything is imported once, in the parent, which runs no operator of MXNet.

    Parameters
    ----------
    words : list of str
        ``[script, argument, ...]``.
    folder : path-like
        The working folder.
    seconds : float
        After which it counts as hanging.
    before : callable, optional
        Called in the child first, such as to set a limit.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            _be(words, folder, out, err, before)
        status = _wait(child, seconds)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace").replace("\r", "\n"))
    if status is None:
        return Ended(None, None, *texts)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    return Ended(None if number else os.WEXITSTATUS(status), number, *texts)


def _be(words, folder, out, err, before):
    """The child: it never returns."""
    status = 70
    with contextlib.suppress(BaseException):
        os.setsid()
        os.chdir(folder)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        if before:
            before()
        sys.argv = [str(word) for word in words]
        try:
            runpy.run_path(str(ROOT / "scripts" / words[0]), run_name="__main__")
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(bool(end.code))
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _wait(child, seconds):
    """The child's status, or None where its time is over; whatever it started ends, too."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.01)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def judge(ended, same=None):
    """``(verdict, why)``: ``same()`` tells whether a command that succeeded gave what it should."""
    problem = ended.problem()
    if problem:
        return WANTING, problem
    if ended.status:
        return LINE, ended.err.strip().splitlines()[-1]
    if same is None or same():
        return NOTHING, ""
    return WANTING, "silently different"


class Tally:
    """Counts of verdicts by kind of case, and what is wanting."""

    def __init__(self):
        self.counts, self.wanting = {}, []

    def add(self, kind, case, verdict, why=""):
        row = self.counts.setdefault(kind, {LINE: 0, NOTHING: 0, WANTING: 0})
        row[verdict] += 1
        if verdict == WANTING:
            self.wanting.append((kind, case, why))
            print(f"wanting: {kind}: {case}: {why}", flush=True)

    def table(self):
        names = (LINE, NOTHING, WANTING)
        lines = ["{:<28} {:>6} {:>9} {:>10} {:>8}".format("kind", "cases", *names)]
        for kind, row in self.counts.items():
            counts = [row[name] for name in names]
            lines.append("{:<28} {:>6} {:>9} {:>10} {:>8}".format(kind, sum(counts), *counts))
        return "\n".join(lines)
