#!/usr/bin/env python3
"""Train AlexNet. python train.py --help lists the options; they are defined in alexnet/commands/train.py."""

import sys

if __name__ == "__main__":
    try:
        from alexnet import entry

        sys.exit(entry.run("train", sys.argv[1:]))
    except KeyboardInterrupt:  # before entry handles the signals
        sys.exit(130)
