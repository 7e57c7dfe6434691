"""python -m alexnet COMMAND ..."""

import sys

if __name__ == "__main__":
    try:
        from . import entry

        sys.exit(entry.main(sys.argv[1:]))
    except KeyboardInterrupt:  # before the signals are handled there
        sys.exit(130)
