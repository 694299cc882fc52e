"""Source code that computes the fixed-point network's integers: C++ for HLS, portable C, Verilog, and what they cost."""

from sound_qkeras.backends.cost import CostEstimate, LayerCost, estimate
from sound_qkeras.backends.export import export_hls
from sound_qkeras.backends.hardware import MeasuredCost, measure
from sound_qkeras.backends.hls4ml_project import Hls4mlProject, to_hls4ml
from sound_qkeras.backends.program_size import ProgramSize, program_size
from sound_qkeras.backends.toolchain import TestBenchResult, compile_and_run, find_ap_types

__all__ = [
    "CostEstimate",
    "Hls4mlProject",
    "LayerCost",
    "MeasuredCost",
    "ProgramSize",
    "TestBenchResult",
    "compile_and_run",
    "estimate",
    "export_hls",
    "find_ap_types",
    "measure",
    "program_size",
    "to_hls4ml",
]
