"""Fixed-point QKeras models with a proved error bound for every input in a box."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sound_qkeras.errors import InfeasibleError, InputError, SoundQKerasError, VerificationError

if TYPE_CHECKING:
    from sound_qkeras.jobs.certify import certify as certify
    from sound_qkeras.jobs.check import check as check
    from sound_qkeras.jobs.finetune import finetune as finetune
    from sound_qkeras.jobs.quantize import quantize as quantize
    from sound_qkeras.jobs.sweep import sweep as sweep
    from sound_qkeras.keras_io import float64 as float64
    from sound_qkeras.results.archive import load as load
    from sound_qkeras.results.result import Result as Result
    from sound_qkeras.study import Study as Study
    from sound_qkeras.study import compare as compare
    from sound_qkeras.verify.certificate import Certificate as Certificate
    from sound_qkeras.verify.softmax import softmax_bound as softmax_bound

__version__ = "0.2.0"

# Public name -> module. Imported on first use, so that `import sound_qkeras` takes no time and no TensorFlow.
_PUBLIC = {
    "Certificate": "sound_qkeras.verify.certificate",
    "Result": "sound_qkeras.results.result",
    "Study": "sound_qkeras.study",
    "certify": "sound_qkeras.jobs.certify",
    "check": "sound_qkeras.jobs.check",
    "compare": "sound_qkeras.study",
    "finetune": "sound_qkeras.jobs.finetune",
    "float64": "sound_qkeras.keras_io",
    "load": "sound_qkeras.results.archive",
    "quantize": "sound_qkeras.jobs.quantize",
    "softmax_bound": "sound_qkeras.verify.softmax",
    "sweep": "sound_qkeras.jobs.sweep",
}
__all__ = [
    "Certificate",
    "InfeasibleError",
    "InputError",
    "Result",
    "SoundQKerasError",
    "Study",
    "VerificationError",
    "__version__",
    "certify",
    "check",
    "compare",
    "finetune",
    "float64",
    "load",
    "quantize",
    "softmax_bound",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """Import public names on first use."""
    if name == "callbacks":
        return importlib.import_module("sound_qkeras.callbacks")
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'sound_qkeras' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Public names, imported or not."""
    return __all__
