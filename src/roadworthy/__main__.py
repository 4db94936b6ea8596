"""``python -m roadworthy`` is the command line."""

from roadworthy.cli import main

if __name__ == "__main__":
    main()
