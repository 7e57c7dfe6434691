import sys

try:
    from .devices import main

    status = main()
except KeyboardInterrupt:
    status = 130
sys.exit(status)
