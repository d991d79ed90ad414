"""Locks of folders: who holds one is named, and it ends with its process."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from raynas.exceptions import ConfigError
from raynas.storage.locks import is_unlocked, lock_folder

OTHER = """
import pathlib, sys
from raynas.storage.locks import lock_folder
with lock_folder(pathlib.Path(sys.argv[1])):
    print("locked")
"""
FORKS = """
import os, pathlib, sys, time
from raynas.storage.locks import lock_folder
with lock_folder(pathlib.Path(sys.argv[1])):
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
print(child, flush=True)
"""


def other(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", OTHER, str(folder)], capture_output=True, text=True)


def test_a_refused_process_names_the_holder_however_often_it_tries(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        for _ in range(2):
            refused = other(tmp_path)
            assert f"process {os.getpid()} on {socket.gethostname()} is at work on {tmp_path}" in refused.stderr
    assert other(tmp_path).stdout == "locked\n"


def test_a_process_that_was_forked_meanwhile_does_not_keep_the_lock(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", FORKS, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())  # the child has the pipe open, too: there is no end of file
        try:
            assert is_unlocked(tmp_path) and other(tmp_path).stdout == "locked\n"
            assert f"{tmp_path}" in Path(f"/proc/{child}/cmdline").read_text(), "the child is at work"
        finally:
            os.kill(child, 9)


def test_looking_whether_a_folder_is_locked_changes_nothing(tmp_path: Path) -> None:
    assert not is_unlocked(tmp_path) and list(tmp_path.iterdir()) == []
    with lock_folder(tmp_path):
        assert not is_unlocked(tmp_path)
    assert is_unlocked(tmp_path)


def test_a_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(file: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with lock_folder(tmp_path):
        assert "it cannot be locked" in caplog.text


def test_a_lock_file_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(ConfigError, match="no regular file"), lock_folder(tmp_path):
        pass
