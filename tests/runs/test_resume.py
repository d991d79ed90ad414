"""The same command line every time: ``--resume auto`` starts a run, or goes on, whenever it was killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import raynas.cli.main
import raynas.runs.context
import raynas.storage.atomic
from raynas import results
from raynas.cli.main import main
from raynas.config.loading import read

NAMES = [
    "--name",
    "mine",
    "--space",
    "spaces.nasbench201:DECISIONS",
    "search.trainable=helpers.plain:Counting",
    "seed=7",
]


def die(*arguments: Any, **options: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def line(folder: Path, *more: str) -> list[str]:
    return ["--resume", "auto", "--storage-path", str(folder), *NAMES, *more]


def replacing(before: bool) -> Callable[[pytest.MonkeyPatch], None]:
    """Death when config.yaml is put into its place: right before, or right after."""

    def set_up(patch: pytest.MonkeyPatch) -> None:
        replace = os.replace

        def replaced(source: Any, target: Any) -> None:
            if before:
                die()
            replace(source, target)
            die()

        patch.setattr(raynas.storage.atomic.os, "replace", replaced)

    return set_up


def at(module: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Death when this is called."""
    return lambda patch: patch.setattr(module, name, die)


def ready(patch: pytest.MonkeyPatch) -> None:
    """Death when Ray has started and nothing is computed yet."""
    patch.setattr(raynas.cli.main, "connect", lambda *arguments: None)
    patch.setattr(raynas.runs.context, "connect", lambda *arguments: None)
    patch.setattr(raynas.runs.context.RunContext, "check_nodes", die)


MOMENTS = {
    "while settings are read": at(raynas.cli.main, "prepare"),
    "when the folder is made": at(raynas.runs.context, "dump"),
    "right before config.yaml": replacing(before=True),
    "right after config.yaml": replacing(before=False),
    "while Ray starts": at(raynas.cli.main, "connect"),
    "when Ray has started": ready,
}


def killed(set_up: Callable[[pytest.MonkeyPatch], None], arguments: list[str]) -> bool:
    """Whether a process that carries out a command died by a signal."""
    child = os.fork()
    if child == 0:
        try:
            set_up(pytest.MonkeyPatch())
            main(arguments)
        finally:
            os._exit(3)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def reaches_ray(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> bool:
    """Whether a command gets as far as to start Ray."""

    def reached(*arguments: Any) -> None:
        raise RuntimeError("Ray would start now")

    with monkeypatch.context() as patch:
        patch.setattr(raynas.cli.main, "connect", reached)
        return main(arguments) == 1


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_a_run_that_was_killed_at_its_start_goes_on_by_the_same_line(
    moment: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_ray: None,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for _ in range(2):  # it may be killed again
        assert killed(moment, line(tmp_path))
    assert reaches_ray(monkeypatch, line(tmp_path)), capsys.readouterr().err
    assert "Ray would start now" in capsys.readouterr().err
    kept = read(tmp_path / "mine" / "config.yaml")
    assert (kept.seed, kept.name) == (7, "mine"), "before Ray starts"
    # And by --resume alone, and by the same line without it, as nothing is computed yet.
    assert reaches_ray(monkeypatch, ["--resume", "mine", "--trust", "--storage-path", str(tmp_path)])
    assert reaches_ray(monkeypatch, line(tmp_path)[2:])


def test_a_run_that_has_scores_goes_on_and_is_not_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reaches_ray(monkeypatch, line(tmp_path))
    with results.Log(tmp_path / "mine" / "scored.parquet") as log:
        log.append({"architecture": {"a": "b"}, "status": "running"})
    assert reaches_ray(monkeypatch, line(tmp_path))
    assert main(line(tmp_path)[2:]) == 2 and "is there already: add --resume" in capsys.readouterr().err
    assert main(line(tmp_path, "seed=8")) == 2 and "seed" in capsys.readouterr().err
    (tmp_path / "mine" / "config.yaml").unlink()
    assert reaches_ray(monkeypatch, line(tmp_path)), "the settings are those of the line"


def test_resume_auto_needs_a_name(tmp_path: Path, no_ray: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--resume", "auto", "--storage-path", str(tmp_path)]) == 2
    assert "--resume auto needs --name" in capsys.readouterr().err
