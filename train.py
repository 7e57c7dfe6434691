#!/usr/bin/env python3
"""Train AlexNet: python train.py --help tells the options, which are in alexnet/commands/train.py."""

import sys

if __name__ == "__main__":
    try:
        from alexnet import entry

        sys.exit(entry.run("train", sys.argv[1:]))
    except KeyboardInterrupt:  # before the signals are handled there
        sys.exit(130)
