"""Run the command line with ``python -m musegnn``."""

from musegnn.cli import main

if __name__ == "__main__":
    main()
