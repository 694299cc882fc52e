"""What the user may choose about the exported code."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from sound_qkeras.backends.names import check_name
from sound_qkeras.errors import InputError

Style = Literal["unrolled", "loops"]
TargetName = Literal["hls", "c", "verilog", "hls4ml"]
InputGuard = Literal["saturate"]


@dataclass(frozen=True)
class Options:
    """What the user may choose about the exported code; see `export_hls`.

    Raises:
        InputError: an option has a value that is not accepted.
    """

    style: Style = "unrolled"
    target: TargetName = "hls"
    input_guard: InputGuard | None = None
    reuse_factor: int = 1
    part: str = "xc7z020clg484-1"
    clock_ns: float = 5.0
    name: str = "net"

    def __post_init__(self) -> None:
        """Check every option once."""
        for option, received, accepted in (
            ("style", self.style, get_args(Style)),
            ("input_guard", self.input_guard, (None, *get_args(InputGuard))),
        ):
            if received not in accepted:
                raise InputError(f"{option} {received!r} is unknown; accepted: {', '.join(map(repr, accepted))}")
        if isinstance(self.reuse_factor, bool) or self.reuse_factor != int(self.reuse_factor) or self.reuse_factor < 1:
            raise InputError(f"reuse_factor {self.reuse_factor!r} is not a whole number of at least 1")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", self.part):
            raise InputError(f"part {self.part!r} is not a device name; accepted: letters, digits, '-', '_' and '.'")
        if not (math.isfinite(self.clock_ns) and self.clock_ns > 0.0):
            raise InputError(f"clock_ns {self.clock_ns!r} is not a clock period in nanoseconds")
        check_name(self.name)
