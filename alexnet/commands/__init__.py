"""The command lines: each module has a function main(arguments), which returns the exit status."""
