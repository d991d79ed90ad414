"""``prepare`` and what it returns: nothing is started or reached over the network before the run is opened."""

from __future__ import annotations

import threading
import typing
from pathlib import Path

import pytest
import ray
from helpers import bare, tiny

import raynas
from raynas import Config, prepare
from raynas.config.run import SearchConfig
from raynas.runs import base, factory
from raynas.runs.base import SearchRun
from raynas.runs.network import Run
from raynas.storage.sync import StoreSync

PLAIN = SearchConfig(trainable="helpers.plain:Counting")


def test_prepare_is_at_home_in_the_factory_and_typed():
    assert raynas.prepare is factory.prepare
    returns = [typing.get_type_hints(each)["return"] for each in typing.get_overloads(factory.prepare)] if hasattr(
        typing, "get_overloads") else [Run, SearchRun]  # fmt: skip
    assert returns == [Run, SearchRun]


def test_a_run_is_a_context_manager_and_says_what_it_is(tmp_path: Path, no_ray):
    config = Config(name="mine", storage_path=str(tmp_path), search=PLAIN)
    prepared = prepare(config, space=bare.DECISIONS)
    assert repr(prepared) == f"<SearchRun 'mine' in {tmp_path}/mine: new>" and not (tmp_path / "mine").exists()
    with prepared as run:
        assert run is prepared and (tmp_path / "mine" / "config.yaml").exists()
        (run.folder / "scored.parquet").mkdir()
        (run.folder / "scored.parquet" / "part-0.parquet").touch()
        assert repr(run).endswith(": begun>")
        (run.folder / "leaderboard.json").touch()
        assert repr(run).endswith(": searched>")
    run = prepare(Config(name="net", storage_path=str(tmp_path)), space=tiny.space(num_classes=4), data=tiny.data())
    assert repr(run) == f"<Run 'net' in {tmp_path}/net: new>"


def test_a_run_is_closed_where_its_block_fails(tmp_path: Path, monkeypatch, no_ray):
    closed: list[SearchRun] = []
    monkeypatch.setattr(SearchRun, "close", lambda run: closed.append(run))
    config = Config(name="mine", storage_path=str(tmp_path), search=PLAIN)
    with pytest.raises(KeyError), prepare(config, space=bare.DECISIONS) as run:
        raise KeyError
    assert closed == [run]


def test_an_object_store_is_not_reached_before_the_run_is_opened(monkeypatch, no_ray):
    reached: list[str] = []
    monkeypatch.setattr(base, "check_storage", lambda path: reached.append("check"))
    monkeypatch.setattr(base, "recover", lambda sync: reached.append("recover"))
    for name in ("pull", "start", "claim", "push", "close"):
        monkeypatch.setattr(StoreSync, name, lambda self, name=name: reached.append(name))
    threads = threading.active_count()
    config = Config(name="mine", storage_path="s3://bucket/runs", search=PLAIN)
    run = prepare(config, space=bare.DECISIONS)
    assert not reached and threading.active_count() == threads
    assert repr(run) == "<SearchRun 'mine' in s3://bucket/runs/mine: new>"
    run.close()
    assert not reached
    with run:
        assert reached == ["check", "recover", "pull", "start", "claim", "push"]
        run.open()
        assert reached[6:] == ["claim", "push"]
    assert reached[8:] == ["close"]
    run.open()
    assert reached[9:] == ["check", "recover", "pull", "start", "claim", "push"], "it may be opened again"


@pytest.mark.parametrize("name", ["search", "open", "close", "best", "report"])
def test_help_says_what_a_method_does(name):
    for kind in (SearchRun, Run):
        text = getattr(kind, name).__doc__
        assert text and not text.startswith("See ")


@pytest.mark.usefixtures("ray_session")
def test_a_plain_trainable_is_minimised(tmp_path: Path):
    options = {place: ("k3", "skip") for place in ("blocks.1", "blocks.2")}
    space = {"blocks.0": ("k3", "k1"), **options}
    search = SearchConfig(trainable="helpers.plain:Counting", mode="min", method="random", num_samples=8, slices=1)
    with prepare(Config(name="mine", storage_path=str(tmp_path), search=search, after=[]), space=space) as run:
        board = run.search()
    assert board[0]["architecture"] == {"blocks.0": "k1", "blocks.1": "skip", "blocks.2": "skip"}
    assert [row["score"] for row in board] == sorted(row["score"] for row in board) and board[0]["score"] == 0
    assert ray.is_initialized()
