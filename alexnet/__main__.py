"""python -m alexnet COMMAND ..."""

import sys

from . import entry

if __name__ == "__main__":
    sys.exit(entry.main(sys.argv[1:]))
