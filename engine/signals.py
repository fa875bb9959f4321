"""Ctrl-C, SIGTERM and the end of the terminal: when they stop a command, and how."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Iterator
from typing import Any

from utils import silence


class Stopped(BaseException):
    """A signal asked the command to stop; exit status 128 + its number, as in a shell.

    Like KeyboardInterrupt it is no Exception, so that code which catches a damaged file's errors does not catch it.
    """

    status = "interrupted"  # in run.json

    def __init__(self, number: int):
        super().__init__(f"Stopped by {signal.Signals(number).name}.")
        self.exit_status = 128 + number


class Stop:
    """Turns a signal into Stopped: at once, or inside `deferred` at the next `check`.

    A second signal ends the process without saving, unless `is_patient`.
    """

    def __init__(self) -> None:
        self.received = 0
        self.is_patient = False
        self.is_deferred = False
        self.under_way = ""
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        self.received = 0
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        # nohup and a shell's & ignore signals, and this keeps it so; None is a handler that Python did not install
        numbers = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        self.before = {number: signal.signal(number, self._receive) for number in numbers}

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: Any) -> None:
        if self.received:
            if self.is_patient:
                return
            os._exit(128 + number)
        self.received = number
        with contextlib.suppress(OSError):  # the stream may be closed, or its reader may have got the signal too
            if number == getattr(signal, "SIGHUP", None):
                for descriptor in (1, 2):
                    if stat.S_ISCHR(os.fstat(descriptor).st_mode):  # the terminal, which is gone
                        silence(descriptor)
            if self.is_deferred:  # written directly: the signal may have interrupted the logger
                os.write(2, f"\nStopping after {self.under_way}; a second signal stops at once.\n".encode())
        if not self.is_deferred:
            raise Stopped(number)

    @contextlib.contextmanager
    def deferred(self, under_way: str = "this batch") -> Iterator[None]:
        """Inside, a signal waits for the next `check`. A message names what is `under_way` until then."""
        self.is_deferred, self.under_way = True, under_way
        try:
            yield
        finally:
            self.is_deferred = False

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self.received:
            raise Stopped(self.received)


stop = Stop()
