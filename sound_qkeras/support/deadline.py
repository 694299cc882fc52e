"""When work has to end: after a budget of work or of time, or earlier, on Ctrl-C, with what was proved so far."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

# What can end a search.
SEARCH, WORK, TIME, INTERRUPT = "search", "work", "time", "interrupt"
# What a usual core does in a second of counted work.
OPERATIONS_A_SECOND = 5e9
# Work that is worth having beside the search's answer may take so long, even when the time is up; of a budget in seconds
# at most such a share.
GRACE_SECONDS, GRACE_SHARE = 5.0, 0.05
# What asks a program to end: Ctrl-C, whoever stops jobs, and a terminal that is closed.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

Item = TypeVar("Item")
_LOG = logging.getLogger("sound_qkeras")


class Clock:
    """The time that passes."""

    ended_by = TIME

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def count(self, operations: float) -> None:
        """Note work that is about to be done."""


class WorkClock(Clock):
    """Counted work, in seconds that it takes a usual core: the same for the same call, whatever else a machine does."""

    ended_by = WORK

    def __init__(self) -> None:
        """Nothing was done yet."""
        self.seconds = 0.0

    def now(self) -> float:
        """What was counted so far."""
        return self.seconds

    def count(self, operations: float) -> None:
        """Note work that is about to be done."""
        self.seconds += operations / OPERATIONS_A_SECOND


@dataclass
class KeptBack:
    """Seconds before the deadline at which work ends already, for what has to come after it."""

    seconds: float = 0.0


@dataclass(frozen=True)
class Deadline:
    """A point in time, and an event that brings it forward to now.

    Args:
        latest: what the clock shows when work ends.
        interrupt: ends it at once.
        firm: whether it breaks off work that is worth seeing through otherwise: somebody gave a budget in seconds.
        reached: set once somebody learned that it had passed: from then on the clock had a say in what comes out.
        clock: that of the wall, or one of counted work.
        seconds: the whole budget, where somebody gave one in seconds; infinite otherwise.
        kept_back: what of it is for later.
    """

    latest: float = float("inf")
    firm: bool = False
    interrupt: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)
    clock: Clock = field(default_factory=Clock)
    seconds: float = float("inf")
    kept_back: KeptBack = field(default_factory=KeptBack)

    @classmethod
    def within(cls, seconds: float, *, firm: bool = False, clock: Clock | None = None) -> Deadline:
        """So many seconds from now."""
        clock = clock or Clock()
        return cls(clock.now() + seconds, firm, clock=clock, seconds=seconds if firm else float("inf"))

    @property
    def now(self) -> float:
        """What the clock shows."""
        return self.clock.now()

    def count(self, operations: float) -> None:
        """Note work that is about to be done."""
        self.clock.count(operations)

    @property
    def interrupted(self) -> bool:
        """Whether the event came."""
        return self.interrupt.is_set()

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return 0.0 if self.interrupted else max(0.0, self.latest - self.kept_back.seconds - self.now)

    @property
    def passed(self) -> bool:
        """Whether work has to end."""
        if self.left > 0.0:
            return False
        self.reached.set()
        return True

    @property
    def ended_by(self) -> str:
        """What ended it: "interrupt", "time", a budget of "work", or the "search" itself; the last two can be repeated."""
        return INTERRUPT if self.interrupted else self.clock.ended_by if self.reached.is_set() else SEARCH

    @property
    def if_firm(self) -> Deadline:
        """For work that is seen through unless the deadline is firm; an interrupt ends it all the same."""
        return self if self.firm else self.moved(float("inf"))

    @property
    def with_grace(self) -> Deadline:
        """For what comes after the search: a little, and all that is left of a firm budget; no interrupt ends it."""
        latest = self.now + min(GRACE_SECONDS, GRACE_SHARE * self.seconds)
        end = max(self.latest - self.kept_back.seconds, latest) if self.firm else latest
        return Deadline(end, self.firm, clock=self.clock, seconds=self.seconds)

    @property
    def timed(self) -> bool:
        """Whether somebody gave a budget in seconds, so that work is planned by how long it was seen to take."""
        return self.seconds < float("inf")

    def share(self, part: float) -> Deadline:
        """For one of many steps: at most so large a part of a budget in seconds, from now on."""
        return self.moved(min(self.latest, self.now + part * self.seconds))

    def keep_back(self, seconds: float) -> None:
        """Keep so many seconds of a budget in seconds for what comes after; the last call counts."""
        if self.timed:
            self.kept_back.seconds = seconds

    def while_it_fits(self, items: Sequence[Item]) -> Iterator[Item]:
        """The items one by one until the deadline passes; of a budget in seconds until all will be seen not to fit."""
        started = self.now
        for done, item in enumerate(items):
            seen = (self.now - started) * (len(items) / done - 1.0) if self.timed and done else 0.0
            if self.passed or seen > self.left:
                self.reached.set()
                return
            yield item

    def moved(self, latest: float) -> Deadline:
        """Another point in time, the same events."""
        return replace(self, latest=latest)


class Interrupts:
    """What SIGINT, SIGTERM and SIGHUP do while a command runs: all of them what Ctrl-C does.

    Attributes:
        received: the signal that ended the work, or asked for it to be finished early; None if none came.
        done: from then on the result is in place, and signals change nothing.
    """

    def __init__(self) -> None:
        """Nothing came."""
        self.received: int | None = None
        self.done = False

    def __call__(self, number: int, frame: object) -> None:
        """The handler."""
        if not self.done:
            self.received = number
            raise KeyboardInterrupt(signal.Signals(number).name)


@contextmanager
def handling_signals(*, for_good: bool) -> Iterator[Interrupts]:
    """While inside, SIGTERM and SIGHUP raise KeyboardInterrupt too, where nobody handles or ignores them otherwise.

    Args:
        for_good: the process ends after the block: what comes then is ignored, and success stays success.
    """
    found, before = Interrupts(), dict[int, Any]()
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
        before = {n: old for n, old in before.items() if old in (signal.SIG_DFL, signal.default_int_handler)}
    for number in before:
        signal.signal(number, found)
    try:
        yield found
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_IGN if for_good else old)


@contextmanager
def first_signal(do: Callable[[], None], says: str) -> Iterator[Interrupts | None]:
    """While inside, a first signal that would raise KeyboardInterrupt does something else; a second one raises.

    Only in the main thread, and only where a signal does what Python or `handling_signals` lets it do: whoever handles it
    otherwise goes on to do so. Gives the handler of the command that is running, if one is.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
        before = {n: h for n, h in before.items() if h is signal.default_int_handler or isinstance(h, Interrupts)}
    command = next((handler for handler in before.values() if isinstance(handler, Interrupts)), None)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def finish(number: int, frame: object) -> None:
        restore()
        if command is not None:
            command.received = number
        do()
        _LOG.warning("%s; once more gives up", says)

    for number in before:
        signal.signal(number, finish)
    try:
        yield command
    finally:
        restore()


@contextmanager
def ended_by_interrupt(deadline: Deadline) -> Iterator[None]:
    """While inside, a first Ctrl-C ends the deadline and raises nothing; a second one raises KeyboardInterrupt."""
    with first_signal(deadline.interrupt.set, "interrupted: finishing with what was found so far"):
        yield


@contextmanager
def put_in_place() -> Iterator[None]:
    """While inside, a result is written and put in place: a first signal waits for that, and later ones change nothing."""
    with first_signal(lambda: None, "interrupted: the result is being written") as command:
        yield
        if command is not None:
            command.done = True
