"""Distributed training on one machine: starts MXNet's scheduler, servers and workers."""

import functools
import os
import signal
import socket
import subprocess
import sys
import time

from ..utils.children import end_with
from ..utils.errors import UserError
from ..utils.framework import ASKED_THREADS, physical_cores
from ..utils.interrupt import STATUS, handle

GRACE = 60  # seconds for workers to end after a signal


def launch(command, workers, servers=1):
    """Run ``command`` in several workers that share gradients; returns the exit status.

    Each worker prints its own lines.  If one dies, the others are killed.  SIGTERM and SIGINT are
    passed on to the workers, which can then stop cleanly.  If this process dies, all are killed.

    Parameters
    ----------
    command : list of str
        A program that trains with ``kvstore=dist_sync``, and its arguments.
    workers, servers : int
        Processes that train, and processes that add up gradients.

    Returns
    -------
    int
        0 if all workers succeeded, otherwise the status of the first one that failed; 75, which
        asks for the same command again, only where none failed otherwise.

    Raises
    ------
    UserError
        The command cannot be started.
    """
    common = {
        "DMLC_PS_ROOT_URI": "127.0.0.1",
        "DMLC_PS_ROOT_PORT": str(_free_port()),
        "DMLC_NUM_WORKER": str(workers),
        "DMLC_NUM_SERVER": str(servers),
        # otherwise the threads of all processes compete for the same cores
        "OMP_NUM_THREADS": ASKED_THREADS or str(max(1, physical_cores() // workers)),
    }
    helper = [sys.executable, "-c", "import openaff, mxnet"]  # mxnet runs the role and ends
    roles = (
        [("scheduler", helper)] + [("server", helper)] * servers + [("worker", command)] * workers
    )
    processes = []
    try:
        for role, program in roles:
            processes.append((role, _start(program, dict(os.environ, DMLC_ROLE=role, **common))))
        return _wait(processes)
    except OSError as error:
        raise UserError(f"cannot start {command[0]}: {error.strerror}") from None
    finally:
        for _, process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _start(program, environment):
    # In its own session: Ctrl-C reaches only this process, which passes it on to the workers.
    end = functools.partial(end_with, os.getpid())
    return subprocess.Popen(program, env=environment, start_new_session=True, preexec_fn=end)


def _wait(processes):
    """Wait until all workers have ended, or one has died; returns the exit status."""
    workers = [process for role, process in processes if role == "worker"]
    helpers = [process for role, process in processes if role != "worker"]
    deadline, failed = [], []

    def forward(number, frame):
        deadline.append(time.monotonic() + GRACE)
        for process in workers:
            if process.poll() is None:
                process.send_signal(number)

    before = handle(forward)
    try:
        while True:
            ended = [process.poll() for process in workers]
            failed += [each for each in workers if each.returncode and each not in failed]
            if all(status is not None for status in ended):
                break
            died = [status for status in ended if status] or [
                process.returncode for process in helpers if process.poll()
            ]
            if died and not deadline:
                # the others wait for its gradients, or are stopping on the same request
                deadline.append(time.monotonic() + (GRACE if STATUS in died else 2))
            if deadline and time.monotonic() > deadline[0]:
                break
            time.sleep(0.1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    statuses = [process.poll() for process in workers]
    if any(status != 0 for status in statuses):
        said = ", ".join("killed" if status is None else str(status) for status in statuses)
        print(f"not all workers succeeded; their exit statuses: {said}", file=sys.stderr)
        # The first failure; 75, a stop on request, only where nothing else was wrong.
        codes = [each.returncode for each in failed]
        return abs(min(codes, key=lambda code: code == STATUS, default=1))
    return 0


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
