"""The processes of a search for benchmarks/soak.py: which there are, what they use, and which outlive it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ENDS = ("driver", "raylet", "gcs")
"""After the death of which the driver must end."""
VICTIMS = {
    "driver": r" -m raynas\.launch ",
    "actor": r"^ray::(supernet|SupernetActor)",
    "trial": r"^ray::(?!IDLE|\w*Agent|supernet|SupernetActor|TemporaryActor)\w",
    "raylet": r"/raylet/raylet ",
    "gcs": r"/gcs_server ",
}
"""What may be killed, by the command line of a process below the driver."""


def tree(root: int) -> dict[int, str]:
    """The processes that a process has started and theirs, itself included: command lines by id."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [root]
    for process in found:  # which grows meanwhile
        found += children.get(process, [])
    return {process: line for process in found if (line := _command(process))}


def victims(driver: int, what: str) -> list[int]:
    """The processes of a kind below a driver."""
    if what == "driver":
        return [driver]
    return [process for process, line in tree(driver).items() if re.search(VICTIMS[what], line)]


def _stat(process: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` after the name: state, parent, and so on."""
    return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _command(process: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


class Sample(NamedTuple):
    """What the processes of a search use at one moment."""

    driver_mb: float
    all_mb: float
    files: int
    processes: int
    threads: int

    @classmethod
    def take(cls, root: int) -> Sample:
        """Of the processes below a driver. Memory that several share is divided among them.

        Pages of files, such as those of libraries, do not count: how many others share them changes meanwhile.
        """
        driver_mb, all_mb, files, processes, threads = 0.0, 0.0, 0, 0, 0
        for process in tree(root):
            with contextlib.suppress(OSError):
                folder = Path(f"/proc/{process}")
                lines = (folder / "smaps_rollup").read_text().splitlines()
                kinds = ("Pss_Anon:", "Pss_Shmem:")
                megabytes = sum(int(line.split()[1]) for line in lines if line.startswith(kinds)) / 1000
                files += len(os.listdir(folder / "fd"))
                threads += len(os.listdir(folder / "task"))
                all_mb += megabytes
                driver_mb += megabytes if process == root else 0.0
                processes += 1
        return cls(driver_mb, all_mb, files, processes, threads)


class Seen:
    """All processes that the drivers of a search have started, whatever became of them."""

    def __init__(self) -> None:
        self.begun: dict[int, str] = {}
        """When each was started, as the kernel counts: another process with its id is another one."""

    def look(self, driver: int) -> None:
        """Add those that are there now."""
        for process in tree(driver):
            with contextlib.suppress(OSError):
                self.begun[process] = _stat(process)[19]

    def alive(self) -> dict[int, str]:
        """Those that still are there: command lines by id."""
        found = {}
        for process, begun in self.begun.items():
            with contextlib.suppress(OSError):
                fields = _stat(process)
                if fields[19] == begun and fields[0] != "Z":
                    found[process] = _command(process)
        return found

    def wait(self, seconds: float) -> dict[int, str]:
        """Wait until all have ended; returns those that have not by then."""
        end = time.monotonic() + seconds
        while (left := self.alive()) and time.monotonic() < end:
            time.sleep(0.5)
        return left

    def end(self, processes: Iterable[int]) -> None:
        """Kill some of them."""
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
