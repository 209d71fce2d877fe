"""Prefetching: processes forked from this one make batches before they are needed.

Why processes: augmentation is many small numpy calls.  Two threads make no more AutoAugment batches
than one, and a single one halves the rate at which the training thread calls MXNet.  Why forked
ones: they share the data set's memory, take any transform without pickling it, start in some 15 ms
and import nothing, where a new interpreter would import mxnet.  Forking is safe here.  MXNet
finishes its work and stops its threads before a fork, and starts them again after it.  A worker
runs numpy, and of MXNet only the reader of record files, which each process opens anew.  It leaves
without running the exit handlers that it inherited.
"""

import contextlib
import math
import mmap
import multiprocessing
import os
import signal
import traceback

import numpy as np

from ..utils.errors import UserError, os_reason

FEWER = "set fewer data.workers (0: no worker processes)"
AHEAD = 2  # batches that a worker may be ahead: one for the next step, one as a reserve


def prefetch(make, numbers, workers):
    """Yield ``make(number)`` for all numbers in order; the workers end with this generator.

    Parameters
    ----------
    make : callable
        ``make(number)`` gives a tuple of arrays of fixed types.  Shapes may differ.  Arrays that
        are no larger than those of the first number go through shared memory, larger ones through
        a pipe, which is slower.  ``make`` must not use MXNet's arrays.
    numbers : range
        Counting up by 1.
    workers : int
        Processes, at least 1.

    Yields
    ------
    tuple of numpy.ndarray
        Read them before you ask for the next tuple: their memory is reused.

    Raises
    ------
    UserError
        A worker died, or ``make`` raised a UserError, a MemoryError or an OSError.
    RuntimeError
        ``make`` raised something else; the message has the worker's traceback.
    """
    if not numbers:
        return
    first, rest = make(numbers[0]), numbers[1:]  # it shows how much memory a batch takes
    workers = min(workers, len(rest))
    slots = AHEAD * workers + 1  # one is in the consumer's hands
    buffers = [
        np.frombuffer(mmap.mmap(-1, slots * array.size * array.itemsize), array.dtype)
        for array in first
    ]

    def slot(index, number, shape):
        size, start = first[index].size, number % slots * first[index].size
        return buffers[index][start : start + size][: math.prod(shape)].reshape(shape)

    def put(index, number, array):
        """The array itself, or its shape if it went into shared memory."""
        if array.size > first[index].size:
            return array
        slot(index, number, array.shape)[...] = array
        return array.shape

    def work(mine, connection):
        for number in mine:
            if number - slots in rest:
                connection.recv()  # until that one's slot is free
            try:
                message = [put(index, number, array) for index, array in enumerate(make(number))]
            except UserError as error:
                message = UserError(f"batch {number}: {error}")
            except MemoryError:
                message = UserError(f"batch {number}: out of memory in a worker; {FEWER}")
            except OSError as error:
                message = UserError(f"batch {number}: {os_reason(error)}")
            except Exception:
                message = RuntimeError(f"batch {number}, in a worker:\n{traceback.format_exc()}")
            connection.send(message)

    pool = {}  # number % workers -> process id and connection
    try:
        for mine in (rest[index::workers] for index in range(workers)):
            pool[mine[0] % workers] = _fork(work, mine)
        yield first
        for number in rest:
            pid, connection = pool[number % workers]
            try:
                message = connection.recv()
            except (EOFError, OSError):
                raise UserError(
                    f"the worker that prefetches batch {number} died ({_cause_of_death(pid)}); if "
                    f"memory ran out, {FEWER}"
                ) from None
            if isinstance(message, Exception):
                raise message
            yield tuple(
                slot(index, number, each) if isinstance(each, tuple) else each
                for index, each in enumerate(message)
            )
            if number + slots in rest:
                with contextlib.suppress(OSError):  # if it died, its next batch will say so
                    pool[(number + slots) % workers][1].send(None)
    finally:
        for pid, _ in pool.values():
            os.kill(pid, signal.SIGKILL)
        for pid, _ in pool.values():
            os.waitpid(pid, 0)


def _fork(work, mine):
    """Run ``work(mine, connection)`` in a new process; its id, and our end of the connection.

    If this process vanishes, the connection breaks, and that ends the worker.
    """
    ours, theirs = multiprocessing.Pipe()
    # Ctrl-C or a scheduler's SIGTERM reaches workers too, but only this process must act on it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                work(mine, theirs)
            finally:
                os._exit(0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    return pid, ours


def _cause_of_death(pid):
    end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it is still to be waited for
    if end.si_code == os.CLD_EXITED:
        return f"exit status {end.si_status}"
    return f"signal {end.si_status} ({signal.strsignal(end.si_status)})"
