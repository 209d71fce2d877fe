"""Stop between two steps when a scheduler or a user asks for it."""

import signal

STATUS = 75  # exit status of a script that stopped on request: EX_TEMPFAIL, try again


class Stopped(Exception):
    """Training stopped early on request, with a checkpoint."""


class StopRequest:
    """A context in which SIGTERM and SIGINT set ``self.signal``; a second signal acts as usual."""

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
