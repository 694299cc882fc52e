"""From a plan to text: the Jinja environment and the spelling of types, numbers and ranges."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sound_qkeras.backends import grids
from sound_qkeras.backends.tensors import Layer, Plan, Tensor
from sound_qkeras.backends.writers import Constant, writer_for
from sound_qkeras.errors import DependencyError
from sound_qkeras.fixed_point import Codes, Format
from sound_qkeras.support.decimals import interval

if TYPE_CHECKING:
    from jinja2 import Environment

LINE = 116
# Larger tensors are static: a stack holds a few megabytes.
STACK_LIMIT = 4096


@cache
def environment() -> Environment:
    """The templates with their filters.

    Raises:
        DependencyError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise DependencyError("exporting code needs Jinja2: pip install 'sound-qkeras[hls]'") from error
    jinja = Environment(
        loader=PackageLoader("sound_qkeras.backends", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    types = (ap_fixed, ap_int, c_int64, exact_type, integer_bits, signed_bits, signed_width, stdint)
    texts = (declaration, describe, mangled, one_line, plain, plus, shifted_left, step)
    jinja.filters.update({function.__name__: function for function in (*types, *texts)})
    return jinja


def parts(plan: Plan) -> dict[str, Any]:
    """What every template may read, computed once."""
    writers = {layer.identifier: writer_for(layer.node) for layer in plan.layers}
    contexts = {layer.identifier: writer_for(layer.node).context(layer, plan.options) for layer in plan.layers}
    constants = {layer.identifier: writer_for(layer.node).constants(layer, plan.options) for layer in plan.layers}
    held = _holders(plan, constants)
    return {
        "plan": plan,
        "options": plan.options,
        "name": plan.options.name,
        "input": plan.input,
        "output": plan.output,
        "tensors": plan.written,
        "layers": plan.layers,
        "stack_limit": STACK_LIMIT,
        "sums": {identifier for identifier, writer in writers.items() if writer.sums},
        "weighted": {identifier for identifier, writer in writers.items() if writer.weighted},
        "constants": {name: found for name, found in constants.items() if held[name] == name},
        "held": held,
        "contexts": contexts,
        "grids": {tensor.identifier: grids.context(tensor) for tensor in plan.written if tensor.grid is not None},
        **registers(plan),
        **sharing(plan, contexts),
    }


def layer_text(jinja: Environment, shared: Mapping[str, Any], layer: Layer) -> str:
    """The code of one operation, from the template of its kind."""
    options = shared["options"]
    name = f"{options.target}/{writer_for(layer.node).template(layer, options)}"
    template = jinja.select_template([f"{name}.{options.style}.j2", f"{name}.j2"])
    name = layer.identifier
    own = {"layer": layer, "id": name, "held": shared["held"][name], "x": layer.source, "y": layer.output}
    return template.render({**shared, **own, **shared["contexts"][name]})


def _holders(plan: Plan, constants: Mapping[str, Sequence[Constant]]) -> dict[str, str]:
    """The layer whose constants each layer reads: its own, or, where they are the same, those of the layer it shares them with."""
    by_node = {layer.node.name: layer.identifier for layer in plan.layers}
    found: dict[str, str] = {}
    for layer in plan.layers:
        name, shares = layer.identifier, layer.node.shares
        owner = name if shares is None else by_node[shares]
        pairs = zip(constants[name], constants[owner], strict=False)
        same = all(own.format == other.format and np.array_equal(own.codes, other.codes) for own, other in pairs)
        found[name] = owner if same and len(constants[name]) == len(constants[owner]) else name
    return found


def grid_text(jinja: Environment, shared: Mapping[str, Any], identifier: str) -> str:
    """The function that rounds to a grid, from the template of its kind."""
    found = shared["grids"][identifier]
    return jinja.get_template(f"{shared['options'].target}/grid_{found['t'].grid.kind}.j2").render(found)


def plain(text: str) -> str:
    """A user's name as it may stand in a comment: nothing that ends one or continues a line."""
    return re.sub(r"[^A-Za-z0-9_.:()<>\[\] -]", "_", text)


def one_line(value: object) -> str:
    """A certificate's value for the README."""
    return " ".join(str(value).split())


def ap_fixed(output: Format, mode: str = "", word_length: int = 0) -> str:
    """The HLS type; `mode` is the overflow mode of a type that rounds, empty for one that never has to."""
    if mode:
        return output.to_ap_fixed(mode)
    bits = max(output.word_length, word_length)
    kind = "ap_fixed" if output.signed else "ap_ufixed"
    return f"{kind}<{bits}, {bits - output.fractional_bits}>"


def exact_type(tensor: Tensor) -> str:
    """The type a rounding starts from, or nothing where the exact format itself will do.

    Two bits more than are dropped: with fewer the public ap_types headers read past the most significant bit.
    """
    if not tensor.rounded or tensor.dropped_bits + 2 <= tensor.exact.word_length:
        return ""
    return ap_fixed(tensor.exact, word_length=tensor.dropped_bits + 2)


def ap_int(output: Format) -> str:
    """The HLS integer that holds the codes of a format."""
    return f"{'ap_int' if output.signed else 'ap_uint'}<{output.word_length}>"


def c_int64(number: int) -> str:
    """A C constant of 64 bits."""
    return f"INT64_C({number})"


def integer_bits(output: Format) -> int:
    """Bits of the smallest standard integer that holds the codes of a format."""
    return next(bits for bits in (8, 16, 32, 64) if output.word_length <= bits)


def signed_bits(tensor: Tensor) -> int:
    """Bits of the signed integer that the C target rounds this tensor in: 32 where value and shift fit, else 64."""
    exact = tensor.exact
    return 32 if exact.word_length + (not exact.signed) <= 32 and tensor.dropped_bits <= 30 else 64


def stdint(output: Format) -> str:
    """The smallest standard integer that holds the codes of a format."""
    return f"{'' if output.signed else 'u'}int{integer_bits(output)}_t"


def shifted_left(bits: int | None) -> str:
    """The C text of a left shift, empty for none."""
    return f" << {bits}" if bits else ""


def signed_width(output: Format) -> int:
    """Bits of a signed number that holds the codes of a format."""
    return output.word_length + (not output.signed)


def mangled(name: str) -> str:
    """A Verilog name as cxxrtl spells it in C++."""
    return name.replace("_", "__")


def plus(bits: int) -> str:
    """The C text of an addition, empty for zero."""
    return f" + {bits}" if bits else ""


def step(output: Format) -> str:
    """One unit in the last place, as a reader likes it."""
    return f"2^{-output.fractional_bits}"


def describe(tensor: Tensor) -> str:
    """Proved range, rounded outward, or what the format holds where none is known."""
    if tensor.proved is not None:
        return f"proved in {interval(*tensor.proved)}"
    return f"within {interval(tensor.format.minimum, tensor.format.maximum)}"


def declaration(constant: Constant) -> str:
    """The C declaration of a constant array: `type name[2][3] = {...}`."""
    dimensions = "".join(f"[{length}]" for length in constant.codes.shape)
    body = "\n".join(_lines(constant.codes, "    "))
    return f"{stdint(constant.format)} {constant.name}{dimensions} = {{\n{body}\n}};"


def _lines(codes: Codes, indent: str) -> Iterator[str]:
    if codes.ndim == 1:
        yield from _wrapped(codes, indent)
        return
    last = len(codes) - 1
    for index, row in enumerate(codes):
        lines = list(_lines(row, indent + "    "))
        comma = "" if index == last else ","
        if row.ndim == 1 and len(lines) == 1:
            yield f"{indent}{{{lines[0].strip()}}}{comma}"
        else:
            yield from (f"{indent}{{", *lines, f"{indent}}}{comma}")


def _wrapped(codes: Codes, indent: str) -> Iterator[str]:
    width = max(map(len, map(str, (codes.min(), codes.max())))) + 2
    count = max(1, (LINE - len(indent)) // width)
    texts = np.char.mod("%d", codes).tolist()
    for start in range(0, len(texts), count):
        comma = "," if start + count < len(texts) else ""
        yield indent + ", ".join(texts[start : start + count]) + comma


def registers(plan: Plan) -> dict[str, Any]:
    """For Verilog: the tensors that are registers, rounded ones and the output, and how many lie between x and y."""
    found = [layer.identifier for layer in plan.layers if layer.output.rounded or layer.output is plan.output]
    return {"registered": set(found), "latency": len(found)}


def sharing(plan: Plan, contexts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """For the loops style: elements of a tensor written at once (`lanes`), and its memory banks (`partitions`)."""
    lanes = {plan.input.identifier: 1}
    banks = {plan.input.identifier: 1}
    for layer in plan.layers:
        factors = contexts[layer.identifier].get("factors")
        sources = [tensor.identifier for tensor in layer.inputs]
        lanes[layer.identifier] = min(lanes[name] for name in sources) if factors is None else factors.outputs
        banks[layer.identifier] = lanes[layer.identifier]
        banks |= {name: max(banks[name], 1 if factors is None else factors.inputs) for name in sources}
    return {"lanes": lanes, "partitions": banks}
