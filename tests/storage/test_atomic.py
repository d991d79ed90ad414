"""Storage that fails: for a while, in the middle of a line, or for good."""

from __future__ import annotations

import errno
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from raynas.exceptions import ConfigError
from raynas.results.log import Log, read
from raynas.storage.atomic import append_line, reason, remove_abandoned, replace_text, write_json, write_with_retry
from raynas.storage.locks import lock_folder
from raynas.storage.removal import own
from raynas.training.checkpoint import latest, write


def test_a_write_is_tried_again_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    refusals = [errno.ENOSPC, errno.EROFS, errno.ESTALE]

    def write() -> str:
        if refusals:
            raise OSError(refusals.pop(0), "refused")
        return "written"

    assert write_with_retry(write, "the file") == "written" and not refusals
    first, second = (record.message for record in caplog.records)
    assert first == "cannot write the file: the disk is full; trying again for 10 minutes"
    assert second.startswith("wrote the file after ")


def test_retries_have_an_end() -> None:
    def write() -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    begin = time.monotonic()
    with pytest.raises(OSError, match="Read-only"):
        write_with_retry(write, "the file", 1.0)
    assert 1.0 <= time.monotonic() - begin < 60


LIMITED = """
import resource, sys
from pathlib import Path
from raynas.storage import atomic
atomic.RETRY_SECONDS = 0.0
resource.setrlimit(resource.RLIMIT_FSIZE, (40, resource.RLIM_INFINITY))
path = Path(sys.argv[1])
atomic.append_line(path, "a" * 30)
try:
    atomic.append_line(path, "b" * 30)
except OSError:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
atomic.append_line(path, "c" * 30)
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


@pytest.mark.parametrize("write", [append_line, replace_text, lambda path, text: write_json(path, text)])
def test_no_link_is_followed(tmp_path, write, monkeypatch):
    """A link where a file is to be written, and links under the names that temporary files might have."""
    victim, path = tmp_path / "victim", tmp_path / "run" / "file.json"
    victim.write_text("theirs")
    path.parent.mkdir()
    for name in (path, path.with_suffix(".part"), path.with_name("file.json.part"), path.parent / ".lock"):
        name.symlink_to(victim)
    begin = time.monotonic()
    try:
        write(path, "ours")
    except OSError as error:
        assert reason(error).startswith("it is a symbolic link") and time.monotonic() - begin < 60
    else:
        assert not path.is_symlink() and "ours" in path.read_text()
    with (
        pytest.raises(ConfigError, match=r"cannot lock .*/\.lock: it is a symbolic link"),
        lock_folder(path.parent),
    ):
        pass
    os.remove(path.parent / ".lock")
    os.mkfifo(path.parent / ".lock")
    with pytest.raises(ConfigError, match="it is no regular file"), lock_folder(path.parent):
        pass
    assert victim.read_text() == "theirs"


def test_temporary_names_cannot_be_foretold(tmp_path, monkeypatch):
    seen = []
    put = os.replace
    monkeypatch.setattr(os, "replace", lambda part, path: (seen.append(part.name), put(part, path)))
    for _ in range(2):
        replace_text(tmp_path / "file", "text")
    assert len(set(seen)) == 2 and all(len(name) > 16 and name.startswith(".") for name in seen)


FULL = """
import resource, signal, sys
from pathlib import Path
from raynas.storage import atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40, resource.RLIM_INFINITY))
try:
    atomic.replace_text(Path(sys.argv[1]), "new " * 100, timeout=0)
except OSError:
    print("refused")
"""


def test_a_full_disk_truncates_nothing(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "refused"
    assert path.read_text() == "old" and [each.name for each in tmp_path.iterdir()] == ["recipe.json"]


def test_a_folder_that_was_deleted_is_made_again(tmp_path):
    """What is in memory is written at once, not after the retries have ended."""
    begin = time.monotonic()
    for deep in ("curve.jsonl", "a/b/curve.jsonl"):
        append_line(tmp_path / "run" / deep, "a")
        replace_text(tmp_path / "run" / deep, "b\n")
        shutil.rmtree(tmp_path / "run")
        append_line(tmp_path / "run" / deep, "c")
        assert (tmp_path / "run" / deep).read_text() == "c\n"
    with Log(tmp_path / "run" / "scored.parquet", math.inf) as log:
        for option in "ab":
            log.append({"architecture": {"block": option}, "status": "complete", "score": 1.0, "fidelity": 1})
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
    write(tmp_path / "run" / "supernet", 1, {"a": torch.ones(2)}, {})
    shutil.rmtree(tmp_path / "run" / "supernet")
    write(tmp_path / "run" / "supernet", 2, {"a": torch.ones(2)}, {})
    assert latest(tmp_path / "run" / "supernet")[0] == 2
    assert read(tmp_path / "run" / "scored.parquet").num_rows == 2
    assert time.monotonic() - begin < 60


def test_what_killed_writers_left_is_removed(tmp_path):
    own(tmp_path / "run")
    for name, age in ((".a.part", 7200), (".b.part", 10), (".c.tmp", 7200), ("d.part", 7200)):
        (tmp_path / "run" / name).write_text("half")
        os.utime(tmp_path / "run" / name, times=(time.time() - age,) * 2)
    remove_abandoned(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [".b.part", ".raynas", "d.part"]
