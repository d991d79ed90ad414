"""The command line: ``raynas``, ``python -m raynas.launch``, or as a file, ``ray submit CLUSTER raynas/launch.py``."""

from __future__ import annotations

from typing import NoReturn

from raynas.cli import native_stderr
from raynas.cli.main import main
from raynas.distributed import health

__all__ = ["main", "run"]


def run() -> NoReturn:
    """Run the command line as a program of its own, and end it with its exit code.

    Unlike :func:`main`, which other programs may call, this ends the process where Ray has died: Ray's own library
    would wait for it forever.
    """
    native_stderr.separate()
    health.guard()
    health.leave(main())


if __name__ == "__main__":
    run()
