"""Plots of runs, and runs side by side."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from helpers.handmade import START

import raynas
from raynas.architecture import key
from raynas.config.loading import dump
from raynas.config.run import Config, SearchConfig
from raynas.exceptions import ConfigError
from raynas.metrics import Objective
from raynas.results.log import Log

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")
from raynas import visualization  # noqa: E402  after the backend

FORMS = [{"a": "x"}, {"a": "y", "a.y.width": "4"}, {"a": "y", "a.y.width": "8"}, {"a": "z"}]
SCORES, MACS = (50.0, 40.0, 70.0, 30.0), (20, 10, 40, 30)


def run(folder: Path, name: str, mode: str = "max", **search: Any) -> Path:
    folder = folder / name
    folder.mkdir()
    config = Config(name=name, storage_path=str(folder.parent), search=SearchConfig(**search))
    (folder / "config.yaml").write_text(dump(config), encoding="utf-8")
    with Log(folder / "scored.parquet", math.inf, objective=Objective("accuracy", mode, "%")) as log:
        for number, (form, score, macs) in enumerate(zip(FORMS, SCORES, MACS, strict=True)):
            row = {"architecture": form, "key": key(form), "max_fidelity": 2, "costs": {"macs": macs}, "seconds": 2.0}
            row |= {"time": START.replace(minute=number), "searcher": "random", "metrics": {"loss": 0.5}}
            log.append({**row, "status": "stopped" if number == 3 else "running", "fidelity": 1, "score": score - 5})
            if number != 3:
                log.append({**row, "status": "complete", "fidelity": 2, "score": score})
    return folder


def lines(ax: Any) -> list[list[tuple[float, float]]]:
    return [list(zip(*(map(float, axis) for axis in line.get_data()), strict=True)) for line in ax.get_lines()]


def test_the_best_so_far_is_drawn_for_each_run(tmp_path: Path) -> None:
    first, second = run(tmp_path, "first"), run(tmp_path, "second")
    ax = visualization.plot_history([first, raynas.load_run(second)])
    assert lines(ax) == 2 * [[(1, 50), (2, 50), (3, 70), (4, 70)]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["first", "second"]
    assert ax.get_ylabel() == "best accuracy (%)"
    low = visualization.plot_history(run(tmp_path, "low", mode="min"))
    assert lines(low) == [[(1, 50), (2, 40), (3, 40), (4, 40)]]
    with pytest.raises(ConfigError, match="do not compare"):
        visualization.plot_history([first, tmp_path / "low"])


def test_the_front_is_that_of_full_scores(tmp_path: Path) -> None:
    ax = visualization.plot_front(run(tmp_path, "run"))
    assert lines(ax) == [[(10, 40), (20, 50), (40, 70)]]
    assert len(ax.collections[0].get_offsets()) == 3
    with pytest.raises(ConfigError, match="holds no cost 'energy'; legal ones: macs"):
        visualization.plot_front(tmp_path / "run", cost="energy")


def test_fidelities_show_who_was_stopped_and_a_given_axes_is_used(tmp_path: Path) -> None:
    from matplotlib import pyplot

    given = pyplot.figure().add_subplot()
    ax = visualization.plot_fidelities(run(tmp_path, "run"), given)
    assert ax is given and len(lines(ax)) == 4
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"stopped early (1)", "complete (3)"}


def test_a_ranking_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run raynas rank --resume"):
        visualization.plot_ranking(run(tmp_path, "run"))


def test_architectures_have_a_column_for_each_decision(tmp_path: Path) -> None:
    table = raynas.load_run(run(tmp_path, "run")).architectures()
    assert list(table.index) == [key(form) for form in FORMS]
    assert list(table["a"]) == ["x", "y", "y", "z"]
    assert list(table["a.y.width"].dropna()) == ["4", "8"]
    assert list(table["score"]) == [50, 40, 70, 25] and list(table["macs"]) == list(MACS)
    assert list(table["status"]) == ["complete"] * 3 + ["stopped"] and set(table["loss"]) == {0.5}


def test_runs_are_compared_row_by_row(tmp_path: Path) -> None:
    table = raynas.compare([run(tmp_path, "first", method="random"), run(tmp_path, "second", mode="min")])
    assert list(table["name"]) == ["first", "second"] and list(table["method"]) == ["random", "auto"]
    assert list(table["best_score"]) == [70, 40] and list(table["macs"]) == [40, 10]
    assert set(table["evaluated"]) == {4} and set(table["stopped"]) == {1} and set(table["failed"]) == {0}
    assert list(table["best_key"]) == [key(FORMS[2]), key(FORMS[1])] and set(table["seconds"]) == {8.0}


def test_a_run_without_scores_has_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(dump(Config(name="run", storage_path=str(tmp_path))))
    assert len(raynas.load_run(tmp_path / "run").architectures()) == 0
