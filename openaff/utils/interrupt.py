"""Stop between two steps when a scheduler or a user asks for it."""

import signal

STATUS = 75  # exit status of a script that stopped on request: EX_TEMPFAIL, try again


class Stopped(Exception):
    """Training stopped early on request, with a checkpoint."""


def handle(handler):
    """Handle SIGTERM and SIGINT by ``handler``; returns the handlers before, by signal.

    A signal that this process was told to ignore, as the shell does for a job in the background,
    stays ignored.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    wanted = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in wanted}


class StopRequest:
    """A context in which SIGTERM and SIGINT set ``self.signal``; a second signal acts as usual.

    See :func:`handle` for inherited settings.
    """

    def __init__(self):
        self.signal = None
        self._before = {}

    def __enter__(self):
        self._before = handle(self._receive)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number, frame):
        self.signal = signal.Signals(number).name
        self.__exit__()
