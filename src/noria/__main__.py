"""`python -m noria` is the command `noria`."""

import sys

from noria.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
