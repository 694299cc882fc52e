"""What a network can be exported as: every target says what it is, which operations and options it has, and what it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from sound_qkeras.backends.hls4ml_layers import EMITTERS
from sound_qkeras.backends.options import Options, Style
from sound_qkeras.backends.writers import WRITERS
from sound_qkeras.errors import InputError, UnsupportedLayerError
from sound_qkeras.network import Node, Pair


@dataclass(frozen=True)
class Compiler:
    """What compiles an export and its test bench.

    Args:
        variable: of the environment, which may name the command.
        commands: those that are looked for.
        flags: what our own files are clean under; the ap_types headers are included as system headers.
        sources: what is compiled.
    """

    variable: str
    commands: tuple[str, ...]
    flags: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """One of the things a network can be exported as.

    Args:
        name: what it is asked for by.
        what: the same in a few words.
        kinds: the operations it has code for.
        files: file of the export -> its template; none where another tool writes the project.
        outside: what happens to a real input outside the input format without a guard.
        styles: how layers with weights may be written, first as they are where nothing is said.
        guards: whether inputs outside their format can be clamped.
        shares: whether multipliers can be used several times per input.
        timed: whether an FPGA and its clock are written down.
        saturates: whether results may saturate.
        any_ends: whether they may saturate at ends where no hardware type ends.
        grids: whether results may be rounded to a format for every element, or to few values.
        bits: what it adds up in, where that has an end.
        compiler: what compiles it, if it has a test bench.
    """

    name: str
    what: str
    kinds: frozenset[str]
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    outside: str = "wrap"
    styles: tuple[Style, ...] = ("unrolled", "loops")
    guards: bool = True
    shares: bool = False
    timed: bool = False
    saturates: bool = True
    any_ends: bool = False
    grids: bool = False
    bits: int | None = None
    compiler: Compiler | None = None

    def check(self, options: Options) -> None:
        """Refuse options that the target does not have.

        Raises:
            InputError: there are some.
        """
        if options.style not in self.styles:
            raise InputError(f"target '{self.name}' has no {options.style}: accepted with style='{self.styles[0]}'")
        if options.reuse_factor > 1 and not (self.shares and options.style == "loops"):
            raise InputError(
                f"reuse_factor {options.reuse_factor} with style '{options.style}' and target '{self.name}': multipliers "
                f"are shared only with style='loops', target={_those(lambda target: target.shares)}"
            )
        if options.input_guard is not None and not self.guards:
            raise InputError(
                f"target '{self.name}' has no guard of its inputs: leave out input_guard={options.input_guard!r}"
            )
        usual = {one.name: one.default for one in fields(options)}
        for name in ("part", "clock_ns"):
            value = getattr(options, name)
            if value != usual[name] and not self.timed:
                raise InputError(f"target '{self.name}' has no use for {name}={value!r}: leave it out")

    def check_saturation(self, pair: Pair) -> None:
        """Refuse results that saturate where the target cannot do that.

        Raises:
            InputError: some do.
        """
        if pair.saturating and not self.saturates:
            raise InputError(
                f"{sorted(pair.saturating)} saturate, which target '{self.name}' cannot; accepted: target="
                f"{_those(lambda target: target.saturates)}, or a network whose overflow is proved impossible"
            )

    def check_grids(self, pair: Pair, options: Options) -> None:
        """Refuse results that are rounded to grids of more than one format, or to few values, where the target cannot do that.

        Raises:
            InputError: some are, or inputs are, and a guard is asked for, which those have no use for.
        """
        for name, grid in pair.grids.items():
            node = pair.network.by_name[name]
            if not self.grids:
                raise InputError(
                    f"layer '{node.layer or name}' rounds its result to {grid}, which target '{self.name}' cannot; accepted: "
                    f"target={_those(lambda target: target.grids)}, or results of one format each"
                )
            if options.input_guard is not None and not node.inputs:
                raise InputError(f"inputs are rounded to {grid}, which nothing is outside of; leave out input_guard")

    def check_operation(self, node: Node) -> None:
        """Refuse an operation that the target has no code for.

        Raises:
            UnsupportedLayerError: it is one.
        """
        kind = node.op.kind
        if kind not in self.kinds:
            others = _those(lambda target: kind in target.kinds)
            way = f"export with target={others}" if others else "replace the layer"
            raise UnsupportedLayerError(
                node.layer or node.name,
                f"operation '{kind}' for target '{self.name}'",
                ", ".join(sorted(self.kinds)),
                f"{way}, or export the part of the network before it",
            )


def _those(able: Callable[[Target], bool]) -> str:
    """The names of the targets that can do something."""
    return " or ".join(f"'{name}'" for name, target in TARGETS.items() if able(target))


def target_named(name: str) -> Target:
    """A target by its name.

    Raises:
        InputError: there is none.
    """
    if name not in TARGETS:
        raise InputError(f"target {name!r} is unknown; accepted: {', '.join(map(repr, TARGETS))}")
    return TARGETS[name]


CXX = Compiler(
    "CXX",
    ("g++", "clang++", "c++"),
    (
        *("-std=c++14", "-O1", "-Wall", "-Wextra"),
        *("-Wno-unknown-pragmas", "-Wno-uninitialized", "-Wno-maybe-uninitialized"),
    ),
    ("src/net.cpp", "tb/tb.cpp"),
)
CC = Compiler(
    "CC",
    ("gcc", "clang", "cc"),
    # gcc 12 sees a sign conversion in `sum <<= 3; sum += (uint32_t)negative_constant;`
    ("-std=c99", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-pedantic"),
    ("src/net.c", "tb/tb.c"),
)
HLS = Target(
    "hls",
    "C++ for Vitis HLS",
    frozenset(WRITERS),
    {
        "src/types.h": "hls/types.h.j2",
        "src/weights.h": "weights.h.j2",
        "src/net.h": "hls/net.h.j2",
        "src/net.cpp": "hls/net.cpp.j2",
        "tb/tb.cpp": "hls/tb.cpp.j2",
        "build/Makefile": "hls/Makefile.j2",
        "build/run_hls.tcl": "hls/run_hls.tcl.j2",
        "build/directives.tcl": "hls/directives.tcl.j2",
        "README.md": "README.md.j2",
    },
    shares=True,
    timed=True,
    grids=True,
    compiler=CXX,
)
C = Target(
    "c",
    "portable C99",
    frozenset(WRITERS),
    {
        "src/types.h": "c/types.h.j2",
        "src/weights.h": "weights.h.j2",
        "src/net.h": "c/net.h.j2",
        "src/net.c": "c/net.c.j2",
        "tb/tb.c": "c/tb.c.j2",
        "build/Makefile": "c/Makefile.j2",
        "README.md": "README.md.j2",
    },
    outside="saturate when rounded",  # C gives a conversion that does not fit no meaning
    styles=("loops", "unrolled"),
    any_ends=True,
    grids=True,
    bits=64,
    compiler=CC,
)
VERILOG = Target(
    "verilog",
    "one module of adders and registers",
    frozenset(kind for kind, writer in WRITERS.items() if writer.verilog),
    {"src/net.v": "verilog/net.v.j2", "README.md": "README.md.j2"},
    outside="not representable",
    styles=("unrolled",),
    guards=False,
    saturates=False,
)
HLS4ML = Target(
    "hls4ml", "a project of hls4ml", frozenset(EMITTERS), styles=("loops",), guards=False, shares=True, timed=True
)
TARGETS = {target.name: target for target in (HLS, C, VERILOG, HLS4ML)}
