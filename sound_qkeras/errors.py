"""Every exception a user can meet.

Messages name the layer, say what was received, what is accepted and the way out; the data behind the
message is kept on the exception, so a program can act on it.
"""

from __future__ import annotations

from typing import Any


class SoundQKerasError(Exception):
    """Base of every error this library raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes with message and data, whatever the constructor asks for."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[SoundQKerasError], arguments: tuple[Any, ...], data: dict[str, Any]) -> SoundQKerasError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(data)
    return error


class InputError(SoundQKerasError, ValueError):
    """A value the user gave is not usable: a tolerance, a box, a file, an option."""


class ModelError(InputError):
    """The model cannot be read: not built, not finite, or of a kind that is not supported."""


class UnsupportedLayerError(ModelError):
    """A layer is of a kind, or used in a way, that has no proved meaning here."""

    def __init__(self, layer_name: str, received: str, accepted: str, way_out: str) -> None:
        """Keep the parts; the message joins them."""
        super().__init__(f"layer '{layer_name}': received {received}; accepted: {accepted}; {way_out}")
        self.layer_name = layer_name
        self.received = received
        self.accepted = accepted
        self.way_out = way_out


class FileFormatError(InputError):
    """A file or directory is missing, corrupt, truncated or not one of ours."""


class DependencyError(SoundQKerasError):
    """An optional package, a solver, a compiler or a header is missing."""


class InfeasibleError(SoundQKerasError):
    """No allowed choice of formats can be proved to stay within the tolerance."""

    def __init__(self, message: str, *, best_bound: float, word_length: int | None = None) -> None:
        """Keep the best bound that was proved and the word length that would do, if one is known."""
        super().__init__(message)
        self.best_bound = best_bound
        self.word_length = word_length


class SolverError(SoundQKerasError):
    """The MILP solver failed, timed out without an answer, or answered nonsense."""

    def __init__(self, message: str, *, status: str) -> None:
        """Keep the solver's own status text."""
        super().__init__(message)
        self.status = status


class VerificationError(SoundQKerasError):
    """The checker could not confirm a claim: the claim is refused."""

    def __init__(self, message: str, *, layer_name: str | None = None) -> None:
        """Keep the layer at which the check failed, where there is one."""
        super().__init__(message)
        self.layer_name = layer_name
