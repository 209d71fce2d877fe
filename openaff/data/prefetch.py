"""Prefetching: batches are made ahead of their use, by processes forked from this one.

Processes, because augmentation is many small numpy calls: two threads make no more AutoAugment
batches than one, and one halves the rate of the training thread's calls to MXNet.  Forked ones,
because they share the data set's memory, take any transform without pickling it, start in some
15 ms and import nothing, where a new interpreter would import mxnet.  Forking is safe here: MXNet
finishes its work and stops its threads before a fork, and starts them anew after it; a worker runs
numpy only, and leaves without the exit handlers of the process that it is a copy of.
"""

import contextlib
import math
import mmap
import multiprocessing
import os
import signal
import traceback

import numpy as np

from ..utils.errors import UserError

AHEAD = 2  # batches a worker may be ahead: one for the next step, one against uneven making


def prefetch(make, numbers, workers):
    """Yield ``make(number)`` for all numbers in order, made by processes that end with this.

    Parameters
    ----------
    make : callable
        ``make(number)``: a tuple of arrays of fixed types.  Shapes may differ: arrays not larger
        than those of the first number go through shared memory, larger ones through a pipe, which
        is slower.  It must not use mxnet.
    numbers : range
        Counting up by 1.
    workers : int
        Processes, at least 1.

    Yields
    ------
    tuple of numpy.ndarray
        To be read before the next is asked for: their memory is used again.

    Raises
    ------
    UserError
        A worker died, or ``make`` raised a UserError.
    RuntimeError
        ``make`` raised something else: the message holds the worker's traceback.
    """
    if not numbers:
        return
    first, rest = make(numbers[0]), numbers[1:]  # the first shows how much memory a batch takes
    workers = min(workers, len(rest))
    slots = AHEAD * workers + 1  # and one in the consumer's hands
    buffers = [
        np.frombuffer(mmap.mmap(-1, slots * array.size * array.itemsize), array.dtype)
        for array in first
    ]

    def slot(index, number, shape):
        size, start = first[index].size, number % slots * first[index].size
        return buffers[index][start : start + size][: math.prod(shape)].reshape(shape)

    def put(index, number, array):
        """The array itself, or its shape where it went into shared memory."""
        if array.size > first[index].size:
            return array
        slot(index, number, array.shape)[...] = array
        return array.shape

    def work(mine, connection):
        for number in mine:
            if number - slots in rest:
                connection.recv()  # when that one's slot is free
            try:
                message = [put(index, number, array) for index, array in enumerate(make(number))]
            except UserError as error:
                message = UserError(f"batch {number}: {error}")
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
                    f"the worker making batch {number} died of {_cause_of_death(pid)}: was memory "
                    "short? Take fewer workers (with 0 the training makes its batches itself)"
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
    """Run ``work(mine, connection)`` in a process: its id, and the connection's other end.

    Should this process vanish, the connection breaks, and that ends the worker.
    """
    ours, theirs = multiprocessing.Pipe()
    # Ctrl-C, or a scheduler's SIGTERM, goes to workers, too: only this process shall answer it.
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
