"""The command lines: each module has a main(arguments), which returns the exit status."""
