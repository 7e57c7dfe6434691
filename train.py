#!/usr/bin/env python3
"""Train AlexNet: python train.py --help tells the options, which are in alexnet/commands/train.py."""

import sys

from alexnet import entry

if __name__ == "__main__":
    sys.exit(entry.run("train", sys.argv[1:]))
