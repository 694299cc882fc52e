"""The command line. What it says about a failure is one line on stderr and an exit code, never a traceback.

| exit code | meaning |
|---|---|
| 0 | done, or verified |
| 1 | a proof was refused, the solver failed, or this library did |
| 2 | bad input: an argument, a model, a file; or something is not installed |
| 3 | no allowed word length reaches the tolerance |
| 130 | interrupted by Ctrl-C; by SIGTERM 143, by SIGHUP 129 |
"""

from sound_qkeras.cli.commands import main
from sound_qkeras.cli.console import BAD_INPUT, DEBUG, FAILED, INFEASIBLE, INTERRUPTED, OK

__all__ = ["BAD_INPUT", "DEBUG", "FAILED", "INFEASIBLE", "INTERRUPTED", "OK", "main"]
