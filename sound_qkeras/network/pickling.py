"""How frozen objects travel: as the fields they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any, cast


class Rebuilt:
    """A dataclass that is pickled and copied as its fields, and made anew from them.

    Guarantee: what arrives was checked and frozen by `__post_init__` like the original; nothing it derived and kept travels.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """The class and its fields by name, as some are taken by name only."""
        names = [field.name for field in fields(self) if field.init]  # type: ignore[arg-type]
        return _made, (type(self), {name: _portable(getattr(self, name)) for name in names})


def _made(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """The object with these fields."""
    return kind(**values)


def _portable(value: Any) -> Any:
    """A read-only view of a mapping cannot be pickled; `__post_init__` puts it back."""
    return dict(cast(Mapping[Any, Any], value)) if isinstance(value, MappingProxyType) else value
