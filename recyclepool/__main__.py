"""``python -m recyclepool``."""

import sys

from recyclepool.cli import main

if __name__ == "__main__":
    sys.exit(main())
