"""How long imports take, each in a fresh process; the best of several, because other processes only ever add to it.

    python tests/benchmarks/import_time.py [runs]

The library is to be imported in under 0.5 s and without TensorFlow. Exit code 1 if it is not.
"""

import subprocess
import sys

LIMIT = 0.5
# What is imported, and for how long it may take; None where TensorFlow or a solver comes along.
MODULES = {
    "sound_qkeras": LIMIT,
    "sound_qkeras.cli": LIMIT,
    "sound_qkeras.results.archive": None,
    "sound_qkeras.jobs.quantize": None,
    "sound_qkeras.callbacks": None,
}
CODE = (
    "import sys, time; start = time.perf_counter(); import {module}; "
    "print(time.perf_counter() - start, 'tensorflow' in sys.modules)"
)


def measure(module: str, runs: int) -> tuple[float, bool]:
    """Seconds, and whether TensorFlow was imported."""
    line = [sys.executable, "-P", "-c", CODE.format(module=module)]
    done = [subprocess.run(line, capture_output=True, text=True, check=True).stdout.split() for _ in range(runs)]
    return min(float(seconds) for seconds, _ in done), any(loaded == "True" for _, loaded in done)


def main(runs: int) -> int:
    late = []
    for module, limit in MODULES.items():
        seconds, tensorflow = measure(module, runs if limit else 1)
        print(f"{module:24} {seconds:7.3f} s  {'with' if tensorflow else 'without'} TensorFlow")
        if limit and (seconds > limit or tensorflow):
            late.append(module)
    print(
        f"too slow, or with TensorFlow: {', '.join(late)}" if late else f"all within {LIMIT} s where there is a limit"
    )
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
