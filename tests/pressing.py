"""Ctrl-C, pressed by progress reports."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Pressing:
    """Progress that presses Ctrl-C at some reports of a stage."""

    def __init__(self, stage: str = "solve and evaluate", times: int = 1, by: int = signal.SIGINT) -> None:
        self.stage, self.left, self.after, self.by = stage, times, list[str](), by

    def __call__(self, stage: str, fraction: float) -> None:
        if self.left and stage == self.stage:
            self.left -= 1
            os.kill(os.getpid(), self.by)
        elif not self.left:
            self.after.append(stage)


@contextmanager
def ctrl_c_as_usual() -> Iterator[None]:
    """Ctrl-C raises, whatever the test runner made of it; what is tested has to leave it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
