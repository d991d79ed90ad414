"""What C++ code prints is not on the screen: see raynas/cli/native_stderr.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raynas.cli import native_stderr

PROGRAM = """
import logging, os, sys
from pathlib import Path
from raynas.cli import native_stderr
if "separate" in sys.argv[2:]:
    native_stderr.separate()
logging.basicConfig(format="%(message)s")
native_stderr.redirect(Path(sys.argv[1]))
os.write(2, b"from C++\\n")
logging.warning("from a logger")
print("from Python", file=sys.stderr)
raise SystemExit("from the interpreter")
"""


def printed(repository: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], cwd=repository, capture_output=True, text=True, check=False
    )
    return done.stderr.splitlines()


def test_only_what_is_printed_past_python_goes_into_the_file(tmp_path: Path, repository: Path) -> None:
    lines = ["from a logger", "from Python", "from the interpreter"]
    for run in (1, 2):
        assert printed(repository, str(tmp_path / "run"), "separate") == lines
        assert (tmp_path / "run" / native_stderr.RAY_LOG).read_text() == run * "from C++\n"


def test_the_process_of_another_program_keeps_its_stderr(tmp_path: Path, repository: Path) -> None:
    assert "from C++" in printed(repository, str(tmp_path))
    assert not (tmp_path / native_stderr.RAY_LOG).exists()


@pytest.mark.parametrize("made", ["a link", "a file in place of the folder"])
def test_where_the_file_cannot_be_written_the_screen_is_used(made: str, tmp_path: Path, repository: Path) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_text("mine")
    if made == "a link":
        (folder / "logs").mkdir()
        (folder / native_stderr.RAY_LOG).symlink_to(elsewhere)
    else:
        (folder / "logs").write_text("a file")
    assert "from C++" in printed(repository, str(folder), "separate")
    assert elsewhere.read_text() == "mine"
