"""When work has to end: after a time budget, or earlier, on Ctrl-C, with what was proved so far."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

# What can end a search.
SEARCH, TIME, INTERRUPT = "search", "time", "interrupt"
# Work that is worth having beside the search's answer may take so long, even when the time is up.
GRACE_SECONDS = 5.0

_LOG = logging.getLogger("sound_qkeras")


@dataclass(frozen=True)
class Deadline:
    """A point in time, and an event that brings it forward to now.

    Args:
        latest: `time.monotonic()` value after which work ends.
        interrupt: ends it at once.
        firm: whether it breaks off work that is worth seeing through otherwise: somebody gave a budget in seconds.
        reached: set once somebody learned that it had passed: from then on the clock had a say in what comes out.
    """

    latest: float = float("inf")
    firm: bool = False
    interrupt: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def within(cls, seconds: float, *, firm: bool = False) -> Deadline:
        """So many seconds from now."""
        return cls(time.monotonic() + seconds, firm)

    @property
    def interrupted(self) -> bool:
        """Whether the event came."""
        return self.interrupt.is_set()

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return 0.0 if self.interrupted else max(0.0, self.latest - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether work has to end."""
        if self.left > 0.0:
            return False
        self.reached.set()
        return True

    @property
    def ended_by(self) -> str:
        """What ended the work: "interrupt", "time", or nothing but the "search" itself, which can be repeated."""
        return INTERRUPT if self.interrupted else TIME if self.reached.is_set() else SEARCH

    @property
    def if_firm(self) -> Deadline:
        """For work that is seen through unless the deadline is firm; an interrupt ends it all the same."""
        return self if self.firm else self.moved(float("inf"))

    @property
    def with_grace(self) -> Deadline:
        """For what comes after the search: what time is left, and a little at least; no interrupt ends it."""
        return Deadline(max(self.latest, time.monotonic() + GRACE_SECONDS))

    def moved(self, latest: float) -> Deadline:
        """Another point in time, the same events."""
        return replace(self, latest=latest)


@contextmanager
def ended_by_interrupt(deadline: Deadline) -> Iterator[None]:
    """While inside, a first Ctrl-C ends the deadline and raises nothing; a second one raises KeyboardInterrupt.

    Only in the main thread, and only where Ctrl-C does what Python lets it do by default: whoever handles it otherwise goes on
    to do so.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def finish(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        deadline.interrupt.set()
        _LOG.warning("interrupted: finishing with what was found so far; once more gives up")

    signal.signal(signal.SIGINT, finish)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
