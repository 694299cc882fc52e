"""What users call the numbers that go in and come out, and in which units they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sound_qkeras.errors import InputError
from sound_qkeras.network.graph import Network, size_of


@dataclass(frozen=True)
class Labels:
    """Names and units as they were given; what was not given is called as Keras calls it, and has no unit.

    Args:
        inputs: one name per number that goes in, or one per input of the model; () for those of Keras.
        outputs: the same of what comes out.
        units: by name.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, network: Network, inputs: Any, outputs: Any, units: Any) -> Labels:
        """The names and units that were given, for this network.

        Raises:
            InputError: another number of names, or a unit of something that has another name.
        """
        found = cls(names_of(inputs), names_of(outputs), units_of(units))
        known = {
            *_tensors(network)[0],
            *_tensors(network)[1],
            *found.inputs,
            *found.outputs,
            *found.input_names(network),
            *found.output_names(network),
        }
        unknown = sorted(set(found.units) - known)
        if unknown:
            raise InputError(
                f"units are given for {unknown}; accepted: names of inputs and outputs: {sorted(known)[:12]}"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain json."""
        return {"inputs": list(self.inputs), "outputs": list(self.outputs), "units": dict(self.units)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Labels:
        """Read what `to_json` wrote.

        Raises:
            InputError: names or units that could not have been given.
            KeyError, TypeError, AttributeError: a part is missing or of the wrong type.
        """
        return cls(names_of(data["inputs"]), names_of(data["outputs"]), units_of(data["units"]))

    def input_names(self, network: Network) -> list[str]:
        """A name for each number that goes in, flattened in order."""
        return _expanded("input_names", self.inputs, _tensors(network)[0])

    def output_names(self, network: Network) -> list[str]:
        """A name for each number that comes out, flattened in order."""
        return _expanded("output_names", self.outputs, _tensors(network)[1])

    def unit(self, name: str) -> str:
        """The unit of a number, or of the tensor it is an element of; empty where none was given."""
        return self.units.get(name, self.units.get(name.partition("[")[0], ""))


def names_of(given: Any) -> tuple[str, ...]:
    """Names: a sequence of texts, or one text with commas; () for None.

    Raises:
        InputError: something else, an empty name, or the same twice.
    """
    if given is None:
        return ()
    parts: Sequence[Any] = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise InputError(f"names are {given!r}; accepted: a list of texts, or one text with commas")
    names = tuple(part.strip() for part in cast("Sequence[str]", parts))
    if not all(names) or len(set(names)) < len(names):
        raise InputError(f"names are {list(names)}; accepted: different ones, none of them empty")
    return names


def units_of(given: Any) -> dict[str, str]:
    """Units by name: a mapping, or a text such as "angle=rad,torque=N m"; empty for None.

    Raises:
        InputError: something else.
    """
    if given is None:
        return {}
    if isinstance(given, str):
        parts = [part.partition("=") for part in given.split(",")]
        given = {name.strip(): unit.strip() for name, _, unit in parts}
    if not isinstance(given, Mapping):
        raise InputError(
            f"units are {given!r}; accepted: a mapping of names to units, or a text such as angle=rad,torque=Nm"
        )
    units = cast("Mapping[Any, Any]", given)
    if not all(isinstance(name, str) and isinstance(unit, str) and name and unit for name, unit in units.items()):
        raise InputError(f"units are {dict(units)}; accepted: a unit, a text, for each name: angle=rad,torque=Nm")
    return dict(units)


def _tensors(network: Network) -> tuple[dict[str, int], dict[str, int]]:
    """The model's inputs and outputs by Keras' names, and how many numbers each has."""
    first, last = network.nodes[0], network.output
    inputs = {port.name: size_of(network.shapes[port.node]) for port in network.inputs}
    outputs = {port.name: size_of(network.shapes[port.node]) for port in network.outputs}
    return (
        inputs or {first.layer: size_of(network.input_shape)},
        outputs or {last.layer: size_of(network.output_shape)},
    )


def _expanded(what: str, given: tuple[str, ...], tensors: Mapping[str, int]) -> list[str]:
    """One name per number."""
    total = sum(tensors.values())
    if len(given) == total:
        return list(given)
    if given and len(given) != len(tensors):
        raise InputError(
            f"{what} has {len(given)} names; accepted: {total}, one per number, or {len(tensors)}, one for each of {list(tensors)}"
        )
    sizes = zip(given or tensors, tensors.values(), strict=True)
    return [name if size == 1 else f"{name}[{k}]" for name, size in sizes for k in range(size)]
