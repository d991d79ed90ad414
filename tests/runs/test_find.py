"""Architectures of a run by their keys, and how many of its scores count under other limits."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from helpers import tiny
from rich.console import Console

from raynas import Run, prepare, results
from raynas.architecture import key
from raynas.cli.arguments import is_key
from raynas.config.run import Config
from raynas.exceptions import ConfigError
from raynas.runs.display import View
from raynas.runs.phases.search import _count_within_limits

CONFIG = Config(
    space="helpers.tiny:DECISIONS",
    name="run",
    search={"trainable": "helpers.plain:Counting", "method": "random"},  # type: ignore[arg-type]
)


def quiet(file: io.StringIO) -> View:
    """Prints into a text."""
    return View(Console(file=file, width=200))


def run_with(folder: Path, architectures: list[dict[str, str]], config: Config = CONFIG) -> Run:
    config = dataclasses.replace(config, storage_path=str(folder))
    run = prepare(
        config, space={"a": ("x", "y"), "b": ("x", "y", "z")}, view=View(Console(file=io.StringIO(), width=200))
    )
    run.folder.mkdir()
    with results.Log(run.folder / "scored.parquet", flush_seconds=1e9) as log:
        for architecture in architectures:
            log.append(
                {"architecture": architecture, "fidelity": 1, "max_fidelity": 1, "status": "complete", "score": 1.0}
            )
    return run


def test_by_its_key_or_the_first_digits(tmp_path: Path) -> None:
    first, second = {"a": "x", "b": "y"}, {"a": "y", "b": "z"}
    run = run_with(tmp_path, [first, second])
    assert run.find(key(first)) == first and run.find(key(second)[:6]) == second
    with pytest.raises(ConfigError, match=r"no architecture in the log of .* has a key that begins with ffffffff"):
        run.find("ffffffff")
    with pytest.raises(ConfigError, match=r"2 architectures have keys that begin with  \(.*\): give more digits"):
        run.find("")


def test_what_is_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_key("4742ab462a39d531") and is_key("4742") and not is_key("474") and not is_key('{"a": "x"}')
    Path("abcd").write_text("{}")
    assert not is_key("abcd"), "a file goes first"


@pytest.mark.ray
def test_a_tighter_limit_tells_how_many_count(tmp_path: Path) -> None:
    printed = io.StringIO()
    config = Config(name="run", storage_path=str(tmp_path), limits={"parameters": 300})
    run = prepare(
        config, space=tiny.space(num_classes=4), data=tiny.data(), view=View(Console(file=printed, width=200))
    )
    run.folder.mkdir()
    decisions = run.search_space.decisions
    drawn = [dict(zip(decisions, [option] * len(decisions), strict=True)) for option in next(iter(decisions.values()))]
    with results.Log(run.folder / "scored.parquet", flush_seconds=1e9) as log:
        for architecture in drawn:
            log.append(
                {"architecture": architecture, "fidelity": 1, "max_fidelity": 1, "status": "complete", "score": 1.0}
            )
    within = sum(run.costs(architecture)["parameters"] <= 300 for architecture in drawn)
    assert 0 < within < len(drawn)
    _count_within_limits(run.context)
    assert printed.getvalue() == f"{within} of {len(drawn)} scored architectures meet the limits (parameters <= 300)\n"
