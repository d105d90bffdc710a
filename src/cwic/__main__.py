"""python -m cwic."""

import sys

from cwic.cli import main

if __name__ == "__main__":
    sys.exit(main())
