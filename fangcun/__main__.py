"""`python -m fangcun` is the same as `fangcun`."""

import sys

from fangcun.cli import main

if __name__ == "__main__":
    sys.exit(main())
