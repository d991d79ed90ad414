"""Tune's records in the folder of a run, and its folder for what does not outlive a search."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raynas.exceptions import ConfigError
from raynas.tune.files import TUNE_LOG, scratch_folder, tune_log

CONTROLLER = logging.getLogger("ray.tune.execution.tune_controller")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of this test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"raynas-tune-{os.getuid()}"


def test_what_is_not_shown_goes_to_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "other name"  # conftest.py looks at tune.log of all runs
    with tune_log(run):
        CONTROLLER.error("Trial task failed for trial %s", 7)
        CONTROLLER.info("nothing")
        logging.getLogger("ray.tune.search.searcher").warning("look here")
    CONTROLLER.error("Trial task failed for trial 8")
    text = (run / TUNE_LOG).read_text()
    assert "ERROR ray.tune.execution.tune_controller: Trial task failed for trial 7" in text and "look here" in text
    assert "nothing" not in text and "trial 8" not in text
    assert "trial 7" not in capfd.readouterr().err


def test_where_tune_is_content_there_is_no_file(tmp_path: Path) -> None:
    with tune_log(tmp_path):
        CONTROLLER.info("nothing")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_search_left_is_removed_by_the_next(temporary: Path, repository: Path) -> None:
    code = (
        "import os, signal; from raynas.tune.files import scratch_folder\n"
        "with scratch_folder() as folder:\n"
        "    (folder / 'trial').mkdir(); print(folder, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    line, environment = [sys.executable, "-c", code], {**os.environ, "TMPDIR": str(temporary.parent)}
    left = Path(subprocess.run(line, env=environment, cwd=repository, capture_output=True, text=True).stdout.strip())
    assert left.is_relative_to(temporary) and (left / "trial").is_dir()
    with scratch_folder() as first:
        assert not left.exists() and not left.parent.exists()
        with scratch_folder() as second:  # of the same process
            assert first.is_dir() and second.is_dir() and first != second
    assert not first.exists()


def test_a_program_leaves_nothing(temporary: Path, repository: Path) -> None:
    code = "from raynas.tune.files import scratch_folder\nwith scratch_folder(): pass"
    environment = {**os.environ, "TMPDIR": str(temporary.parent)}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=repository, check=True)
    assert list(temporary.iterdir()) == []


def test_nothing_is_removed_in_a_folder_of_somebody_else(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "x").mkdir(parents=True)
    temporary.symlink_to(tmp_path / "mine")
    with pytest.raises(ConfigError, match="is not this user's own folder"), scratch_folder():
        pass
    temporary.unlink()
    temporary.mkdir()
    temporary.chmod(0o777)
    with pytest.raises(ConfigError, match="TMPDIR"), scratch_folder():
        pass
