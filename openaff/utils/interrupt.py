"""Stopping between two steps when the scheduler, or a person, asks for it."""

import signal

STATUS = 75  # a script's exit status when it stopped on request: EX_TEMPFAIL, try again


class Stopped(Exception):
    """Training ended early, on request, with a checkpoint."""


class StopRequest:
    """While it lasts, SIGTERM and SIGINT set ``self.signal``; a second one acts as usual."""

    def __init__(self):
        self.signal = None
        self._before = {}

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number, frame):
        self.signal = signal.Signals(number).name
        self.__exit__()
