"""Storage that fails: for a while, in the middle of a line, or for good."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raynas.patience import append_line, patiently


def test_a_write_is_tried_again_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    refusals = [errno.ENOSPC, errno.EROFS, errno.ESTALE]

    def write() -> str:
        if refusals:
            raise OSError(refusals.pop(0), "refused")
        return "written"

    assert patiently(write, "the file") == "written" and not refusals
    first, second = (record.message for record in caplog.records)
    assert first == "cannot write the file: the disk is full; trying again for 10 minutes"
    assert second.startswith("wrote the file after ")


def test_patience_has_an_end() -> None:
    def write() -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    begin = time.monotonic()
    with pytest.raises(OSError, match="Read-only"):
        patiently(write, "the file", 1.0)
    assert 1.0 <= time.monotonic() - begin < 10


LIMITED = """
import resource, sys
from pathlib import Path
from raynas import patience
patience.PATIENCE = 0.0
resource.setrlimit(resource.RLIMIT_FSIZE, (40, resource.RLIM_INFINITY))
path = Path(sys.argv[1])
patience.append_line(path, "a" * 30)
try:
    patience.append_line(path, "b" * 30)
except OSError:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
patience.append_line(path, "c" * 30)
"""


def test_half_a_line_is_taken_back(tmp_path: Path) -> None:
    """The system takes the first 9 bytes of the second line and refuses the rest, as a disk that becomes full does."""
    path = tmp_path / "curve.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "refused"
    assert path.read_text() == "a" * 30 + "\n" + "c" * 30 + "\n"
    append_line(path, "d")
    assert path.read_text().splitlines()[-1] == "d"


def test_a_line_that_a_power_cut_has_torn_stays_alone(tmp_path):
    path = tmp_path / "lines"
    path.write_text('{"a": 1}\n{"a": ')
    append_line(path, '{"a": 3}')
    append_line(path, '{"a": 4}')
    assert path.read_text().splitlines() == ['{"a": 1}', '{"a": ', '{"a": 3}', '{"a": 4}']
