from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from datetime import timedelta
from pathlib import Path

import pytest
from helpers.handmade import CONFIG, START, Page, chosen, fill, finish, page, reports, retrain, settle

from raynas import architecture
from raynas.analysis.run_data import read_run_data
from raynas.config.loading import dump
from raynas.metrics import Objective
from raynas.report.page import write_report
from raynas.report.svg import Axis, Plot
from raynas.results.log import Log
from raynas.results.timing import PAUSE

SECTIONS = ("front", "progress", "winner", "lineage", "best", "fates", "training", "time", "repeat")


# What a page of a whole run says


def test_every_section_tells_the_numbers_of_the_run(tmp_path: Path) -> None:
    folder = retrain(finish(fill(tmp_path / "my-run")))
    path = write_report(folder)
    assert path == folder / "report.html" and sorted(folder.glob("*.part")) == []
    shown = page(folder)
    assert all(shown.text(section) for section in SECTIONS)
    head = shown.text("header")
    assert "RayNAS · my-run 90.38 % on the test images, trained from scratch" in head
    assert "The best of 6 architectures (2 stopped early) of spaces.shufflenet:spos_small on digits" in head
    assert "validation 91.50 %, 30 epochs" in head and "82.12 %" in head and "in the search 83.75 %" in head
    assert "MACs 2.3 M at least 1 M and at most 4 M" in head and "parameters 50 k no limit" in head
    assert "begun and has not ended: 1." in head
    for cost in ("MACs", "parameters"):
        told = "2 architectures scored in full within the limits (blue), 2 of them on the Pareto front (line)."
        assert f"Score against {cost}. {told} 5 others" in shown.text("front")
    assert "at most 4 M" in shown.text("front") and "No limit was set." in shown.text("front")
    assert "The best was improved 1 time." in shown.text("progress")
    assert "The best was found after 16 s of 26 s" in shown.text("progress")
    winner = shown.text("winner")
    assert architecture.key(chosen(3)) in winner and "blocks.1 k5" in winner and "blocks.0 = k3: 43 % of the" in winner
    rows = [f"{architecture.key(chosen(n))} {text}" for n, text in (
        (3, "83.75 % 82.12 % 2.3 M 50 k 90.38 %"), (0, "71.25 % 70.00 % 2 M 50 k -"))]  # fmt: skip
    assert f"1 {rows[0]} 2 {rows[1]}" in shown.text("best")
    fates = shown.text("fates")
    assert "stopped at 1 of 4 1 14 % stopped at 2 of 4 1 14 % complete 3 43 % failed 1 14 % not ended 1 14 %" in fates
    assert "saved 25 % of the scoring: 15 of 20 steps" in fates and "1 failed: RuntimeError: out of <memory>" in fates
    assert "Training of the supernet. 30 of 30 steps; loss 1.500 at the end." in shown.text("training")
    assert "training the supernet 20 s" in shown.text("time") and "retraining 60 s" in shown.text("time")
    assert "search, scoring 18 s" in shown.text("time") and "search, all else 8 s" in shown.text("time")
    assert "Evaluation took 18 s of computing on 1 worker." in shown.text("time")
    assert " ".join(dump(CONFIG).split()) in shown.text("repeat")
    assert "python -m raynas.launch --config config.yaml --name my-run-again" in shown.text("repeat")
    assert f"--resume {folder}" in shown.text("repeat")


def test_what_a_searcher_has_learned_is_told_round_by_round(tmp_path: Path) -> None:
    folder = finish(fill(tmp_path / "run"))
    assert "learned" not in page(folder).texts
    shared = {"steps": 9, "seconds": 1.0, "bound": False, "reconstructed": 0.9, "mode": "max", "fidelity": 1}
    rounds = [
        {**shared, "scores": 20, "held_out": 4, "pairwise": 0.75, "pool": 60.0, "generated": [
            {"key": "a", "predicted": 0.9, "score": 70.0}, {"key": "b", "predicted": 0.8, "score": 72.0},
            {"key": "c", "predicted": 0.7, "score": 65.0}, {"key": "d", "predicted": 0.6, "score": None}]},
        {**shared, "bound": True, "scores": 30, "held_out": 0, "pairwise": None, "pool": 64.0, "generated": [
            {"key": "e", "predicted": 0.9, "score": 63.0}]},
    ]  # fmt: skip
    (folder / "searcher.json").write_text(json.dumps(rounds))
    told = page(folder).text("learned")
    assert "In the search 1 of 2 rounds generated architectures whose mean score is better" in told
    assert (
        "20 9 90 % 75 % (4 held out) 60.00 % 3 0.80 69.00 % 67 % 30 9, cut short 90 % - 64.00 % 1 0.90 63.00 % -"
        in told
    )
    assert "4 generated architectures; in blue" in told and "In the training" not in told
    # What the last round of a pool has generated is judged by the search, beside what stayed.
    last = {**rounds[0], "generated": [{"key": architecture.key(chosen(3)), "predicted": 0.9, "score": None}]}
    pool = {"members": [chosen(0), chosen(3)], "rounds": [{"step": 5, "new": [chosen(3)], "learned": last}]}
    (folder / "supernet" / "rounds.json").write_text(json.dumps(pool))
    told = page(folder).text("learned")
    assert "In the training of the supernet 1 of 1 rounds generated" in told  # by what both have, not by who went on
    assert "20 9 90 % 75 % (4 held out) 71.25 % 1 0.90 83.75 % -" in told


def test_nothing_is_loaded_and_nothing_runs(tmp_path: Path) -> None:
    html = write_report(retrain(finish(fill(tmp_path)))).read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|<script", html)
    for tag, name, value in Page(html).attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("href", "src", "srcset", "data", "action", "xlink:href"):
            assert value == "data:,", (tag, name, value)


def test_an_earlier_page_is_replaced_and_earlier_settings_are_kept(tmp_path: Path) -> None:
    folder = finish(fill(tmp_path))
    assert "not retrained yet" in page(folder).text("header")
    (folder / "config-0.yaml").write_text("search: {num_samples: 17}\n")
    shown = page(retrain(folder))
    assert "not retrained yet" not in shown.text("header")
    assert "the settings of an earlier part of this run search: {num_samples: 17}" in shown.text("repeat")


@pytest.mark.parametrize(("finals", "word"), [((0.5, 0.9), "lower"), ((0.9, 0.5), "higher")])
def test_a_score_that_is_no_accuracy_has_no_percent_and_its_own_direction(
    tmp_path: Path, finals: tuple[float, float], word: str
) -> None:
    settle(tmp_path)
    objective = Objective("loss", "min") if word == "lower" else Objective("margin")
    with Log(tmp_path / "scored.parquet", math.inf, objective=objective) as log:
        for number, score in ((0, 0.5), (3, 0.9), (6, 0.7)):
            for row in reports(number, 4, score, "complete", metrics={"loss": 1.0}):
                log.append(row)
    finish(tmp_path, (0, 3) if word == "lower" else (3, 0), finals)
    shown = page(tmp_path)
    assert f"score ({word} is better)" in shown.text("front")
    assert f"{finals[0]:.4g} is the score" in shown.text("header")
    improved = 0 if word == "lower" else 1
    assert f"The best was improved {improved} time" in shown.text("progress")


# Runs that did not come to their end


def test_an_interrupted_search_shows_the_best_so_far_and_says_so(tmp_path: Path) -> None:
    shown = page(fill(tmp_path))
    assert "83.75 % so far, at fidelity 4; the search has not ended" in shown.text("header")
    assert "there is no leaderboard yet" in shown.text("header")
    assert "not retrained yet" in shown.text("header") and "not scored again yet" in shown.text("header")
    best = shown.text("best")
    assert best.index(architecture.key(chosen(3))) < best.index(architecture.key(chosen(0)))
    assert architecture.key(chosen(4)) not in best  # breaks the limit


@pytest.mark.parametrize("log", ["missing", "empty"])
def test_a_run_without_any_score_still_gives_a_page(tmp_path: Path, log: str) -> None:
    settle(tmp_path)
    if log == "empty":
        Log(tmp_path / "scored.parquet").close()
    shown = page(tmp_path)
    assert "Nothing found yet" in shown.text("header") and "the log of this run is empty" in shown.text("header")
    for section, words in {
        "front": "No architecture has a score and a number of MACs yet.",
        "progress": "No architecture has been scored in full",
        "winner": "There is no winner yet.",
        "best": "Nothing to list yet.",
        "fates": "No architecture was scored yet.",
        "training": "no training curve of a supernet",
        "time": "No times are noted yet.",
        "repeat": "spaces.shufflenet:spos_small",
    }.items():
        assert words in shown.text(section)


def test_only_failures_are_told_as_such(tmp_path: Path) -> None:
    settle(tmp_path)
    with Log(tmp_path / "scored.parquet", math.inf) as log:
        log.append({"architecture": chosen(1), "status": "error", "fidelity": 0, "time": START})
        log.append({"architecture": chosen(2), "status": "complete", "fidelity": 1, "score": math.nan, "time": START})
    shown = page(tmp_path)
    assert "No architecture has a score within the limits." in shown.text("header")
    assert "failed 1 50 %" in shown.text("fates") and "1 failed: the log has no reason" in shown.text("fates")


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    folder = retrain(fill(tmp_path))
    (folder / "leaderboard.json").write_text('[{"key":')
    next(folder.glob("retrain/*/result.json")).write_text("")
    (folder / "scored.parquet" / "part-00000099-abcdef00.parquet").write_bytes(b"torn")
    with open(folder / "supernet" / "training.jsonl", "a", encoding="utf-8") as curve:
        curve.write('{"step": 40, "to')
    shown = page(folder)
    head = shown.text("header")
    for words in ("leaderboard.json is not JSON", "result.json is not JSON", "part-00000099", "left out: 1."):
        assert words in head
    assert "83.75 %" in head and "30 of 30 steps" in shown.text("training")


def test_a_leaderboard_older_than_the_log_or_of_other_limits_is_said(tmp_path: Path) -> None:
    folder = finish(fill(tmp_path))
    stale = (START + timedelta(seconds=16.5)).timestamp()
    os.utime(folder / "leaderboard.json", (stale, stale))
    assert "older than the scores of 3 architectures" in page(folder).text("header")
    settle(folder, dataclasses.replace(CONFIG, limits={"macs": 2.1e6}))
    assert "made under other limits" in page(folder).text("header")


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + " is no folder of a run: it has no config.yaml"):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="is no folder of a run"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "config.yaml").write_text("spaec: x\n")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + ".*unknown setting 'spaec'"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


# Names from outside


def test_special_characters_arrive_as_text(tmp_path: Path) -> None:
    nasty = "<b>&\"'<script>"  # a name is one component of a path
    settle(tmp_path, dataclasses.replace(CONFIG, name=nasty, space=f"{nasty}:x", limits={}))
    with Log(tmp_path / "scored.parquet", math.inf) as log:
        for option in (nasty, "plain"):
            for row in reports(0, 4, 50.0, "complete", architecture={f"a.{nasty}": option}, key=f"{option}{nasty}"):
                log.append(row)
        for row in reports(7, 1, 50.0, "error", error=nasty):
            log.append(row)
    html = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<script" not in html and "<b>&" not in html
    shown = Page(html)
    assert nasty in shown.text("header") and nasty in shown.text("winner") and nasty in shown.text("fates")
    assert ("i", "title", f"a.{nasty} = {nasty}") in shown.attributes
    assert f"--name '{nasty}-again'".replace("\"'", "\"'\"'\"'") in shown.text("repeat")


# The facts behind it


def test_pauses_do_not_count_as_time_of_the_search(tmp_path: Path) -> None:
    fill(tmp_path)
    before = read_run_data(tmp_path).clock
    later = START + timedelta(seconds=30 + PAUSE + 1000)
    with Log(tmp_path / "scored.parquet", math.inf) as log:
        log.append(next(reports(8, 1, 50.0, "stopped", time=later, seconds=5.0)))
    after = read_run_data(tmp_path).clock
    assert after.wall == pytest.approx(before.wall + 5.0) and after.busy == pytest.approx(before.busy + 5.0)
    with Log(tmp_path / "scored.parquet", math.inf) as log:  # one long score is work, not a pause
        log.append(next(reports(9, 1, 50.0, "stopped", time=later + timedelta(seconds=500), seconds=500.0)))
    assert read_run_data(tmp_path).clock.wall == pytest.approx(after.wall + 500.0)


def test_a_score_that_was_resumed_counts_once(tmp_path: Path) -> None:
    fill(tmp_path)
    with Log(tmp_path / "scored.parquet", math.inf) as log:
        for row in list(reports(6, 4, 56.0, "complete"))[2:]:
            log.append(row)
    run_data = read_run_data(tmp_path)
    assert [one.key for one in run_data.scored].count(architecture.key(chosen(6))) == 1
    assert run_data.scored[-1].full and run_data.scored[-1].score == 56.0 and run_data.clock.busy == 20.0


def test_steps_that_were_made_twice_count_as_they_were_made_last(tmp_path: Path) -> None:
    (settle(tmp_path) / "supernet").mkdir()
    lines = [(10, 3.0, 0.0), (20, 2.0, 10.0), (30, 1.5, 20.0), (20, 1.75, 5000.0), (25, 1.5, 5010.0)]
    entries = [{"step": s, "total": 40, "loss": loss, "time": time} for s, loss, time in lines]
    (tmp_path / "supernet" / "training.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    curve = read_run_data(tmp_path).training
    assert curve is not None and (curve.steps, curve.losses) == ([10, 20, 25], [3.0, 1.75, 1.5])
    assert curve.seconds == 30.0 and not curve.finished
    assert "stands at step 25 of 40" in page(tmp_path).text("header")


# Drawing


def test_axes_hold_their_values_and_have_round_ticks() -> None:
    for values in ([1.0, 2.0], [7.0], [0.0], [-3e9, 5e9], [1e-7, 3e-7], [math.nan, 4.0], []):
        axis = Axis.of("x", values)
        assert axis.low < axis.high and 2 <= len(axis.ticks()) <= 12
        assert all(0 < axis.share(value) < 1 for value in values if math.isfinite(value))
        assert all(-1e-9 <= axis.share(tick) <= 1 + 1e-9 for tick in axis.ticks())
    assert Axis.of("x", [0.0, 100.0], start=0.0).ticks() == [0, 25, 50, 75, 100]


def test_points_lie_where_their_values_say() -> None:
    plot = Plot(Axis("x", 0, 10), Axis("y", 0, 1), "a < b")
    plot.dots([(0, 0), (10, 1), (10, 1)], "full")
    plot.line([(0, 0), (5, 1)], "front", stairs=True)
    plot.marks({(5, 0.5): "<tip>"}, "winner")
    plot.limit(10, "most")
    svg = plot.svg()
    Page(svg)
    assert 'd="M62 256h0M466 20h0"' in svg and 'd="M62 256H264V20"' in svg
    assert 'cx="264" cy="138"' in svg and "&lt;tip&gt;" in svg and "a &lt; b" in svg and 'd="M466 20V256"' in svg
