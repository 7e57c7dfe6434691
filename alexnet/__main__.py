"""python -m alexnet COMMAND ..."""

import sys

if __name__ == "__main__":
    try:
        from . import entry

        sys.exit(entry.main(sys.argv[1:]))
    except KeyboardInterrupt:  # before entry handles the signals
        sys.exit(130)
