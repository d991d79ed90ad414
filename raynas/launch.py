"""The command line: ``python -m raynas.launch``, or as a file, ``ray submit CLUSTER raynas/launch.py``."""

from __future__ import annotations

import sys

from raynas.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
