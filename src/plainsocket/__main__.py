"""`python -m plainsocket` is the command `plainsocket`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
