"""Doing something whenever one model's training function runs, for the length of one fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Extension:
    """Something that happens while one model is trained.

    `attach` replaces the model's training function by one that does it, which a subclass defines. `detach` puts the old
    function back. Training that fails or is interrupted detaches by itself.
    """

    # What a training function raises where the data ends.
    END_OF_DATA: tuple[type[BaseException], ...] = (StopIteration,)

    def __init__(self, model: Any) -> None:
        """Nothing is touched yet."""
        self.model = model

    def attach(self) -> None:
        """Start; call it inside `fit`, before a batch."""
        before = self.model.train_function
        if isinstance(before, _ObservedFunction):
            before.renew()
        inner = before if isinstance(before, _ObservedFunction) else self.observed(before)
        self.model.train_function = _ObservedFunction(self, before, inner)

    def detach(self) -> None:
        """Stop, and leave the model's training function as it was found. May be called twice."""
        top = self.model.train_function
        function = top
        while isinstance(function, _ObservedFunction):
            function.released |= function.observer is self
            function = function.before
        while isinstance(top, _ObservedFunction) and top.released:
            top = top.before
        self.model.train_function = top

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around every call of the training function."""
        yield

    def seen(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """What the training function is called with, after a look at it."""
        return arguments

    def observed(self, before: Any) -> Any:
        """The function that trains."""
        return before


class _ObservedFunction:
    """A model's training function while an extension is at work."""

    def __init__(self, observer: Extension, before: Any, inner: Any) -> None:
        """Keep what was there `before`, to be put back, and the function that trains."""
        self.observer, self.before, self.inner = observer, before, inner
        self.history = _history(observer.model)
        self.released = False

    def renew(self) -> None:
        """Forget what was traced: another extension is to be part of it."""
        if isinstance(self.inner, _ObservedFunction):
            self.inner.renew()
        else:
            self.inner = self.observer.observed(self.before)

    def __call__(self, *args: Any) -> Any:
        observer = self.observer
        history = _history(observer.model)
        self.history = self.history or history
        if history not in (None, self.history):
            # The fit this was made for ended where nobody could tell us; this is another one.
            observer.detach()
            return observer.model.train_function(*args)
        if self.released:
            return self.inner(*args)
        try:
            with observer.watching():
                return self.inner(*observer.seen(args))
        except observer.END_OF_DATA:
            raise
        except BaseException:
            observer.detach()
            raise


def _history(model: Any) -> Any:
    """What Keras keeps about the model's fit; None while it is about an evaluation or a prediction, which a callback may start."""
    history = getattr(model, "history", None)
    return history if hasattr(history, "epoch") else None
