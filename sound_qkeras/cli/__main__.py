"""`python -m sound_qkeras.cli`."""

import sys

from sound_qkeras.cli import main

if __name__ == "__main__":
    sys.exit(main())
