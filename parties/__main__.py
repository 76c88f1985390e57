"""Runs the command line: `python -m parties`."""

from parties.cli import main

if __name__ == "__main__":
    main()
