"""The pictures of the page: the winner as a graph, where it comes from, random search; and all of it in a browser."""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from helpers.browser import look
from helpers.handmade import START, Page, chosen, fill, finish, page, reports, retrain, settle

from raynas.analysis.random_baseline import Baseline, baseline, expected_best, quantile_of_best
from raynas.analysis.run_data import read_run_data
from raynas.architecture import key
from raynas.metrics import Objective
from raynas.report.architecture_svg import draw
from raynas.report.page import write_report
from raynas.report.svg import far
from raynas.results.log import Log
from raynas.search_space.graph import graphs
from raynas.search_space.space import SearchSpace
from raynas.spaces import darts_genotype, nasbench201

# The winner as a graph

CHOSEN = ("nor_conv_3x3", "none", "skip_connect", "avg_pool_3x3", "none", "none")
CELL = dict(zip(nasbench201.DECISIONS, CHOSEN, strict=True))
HUES = {"nor_conv_3x3": 2, "avg_pool_3x3": 5}


def wires(space: SearchSpace, form: dict[str, str]) -> str:
    found = graphs(space, [form])
    taken = [(s, t, operation) for s, t, operation in found["architectures"][key(form)]]
    html = draw([(s, t) for s, t in found["edges"]], taken, HUES)
    Page(html)
    return html


def kinds(html: str) -> dict[str, str]:
    """The class of each line by its tip."""
    return {tip: kind for kind, tip in re.findall(r'<path class="([^"]+)"[^>]*><title>([^<]+)</title>', html)}


def test_a_cell_is_drawn_with_what_flows_and_what_does_not() -> None:
    decisions = dict.fromkeys(nasbench201.DECISIONS, nasbench201.OPTIONS)
    found = graphs(SearchSpace(decisions, graph=nasbench201.graph), [CELL])
    assert found["edges"] == sorted(map(list, nasbench201.EDGES))
    html = wires(SearchSpace(decisions, graph=nasbench201.graph), CELL)
    assert html.count("<circle") == 4
    edges = dict(zip(nasbench201.EDGES, CELL.values(), strict=True))
    reaches = {3} | {s for (s, t), o in edges.items() if o != "none" and t == 3}
    told = kinds(html)
    for (source, target), option in edges.items():
        alive = option != "none" and target in reaches
        (tip,) = (tip for tip in told if tip.startswith(f"{source} to {target}: "))
        wanted = {"none": "open", "skip_connect": "idle"}.get(option, "taken")
        assert told[tip] == f"wire {wanted}" + (" dead" if not alive and option != "none" else ""), (tip, told[tip])
        assert tip.endswith(", of no effect") != alive


def test_both_cells_of_darts_are_drawn_and_the_output_gathers_all_nodes() -> None:
    form = {name: options[-1] for name, options in darts_genotype.DECISIONS.items()}
    html = wires(SearchSpace(darts_genotype.DECISIONS, graph=darts_genotype.graph), form)
    assert html.count("<svg") == 2 and html.count("<circle") == 14
    told = kinds(html)
    assert sum(value == "wire taken" for value in told.values()) == 16, "two of each of four nodes in two cells"
    assert sum(value == "wire idle" for value in told.values()) == 8, "every node leads to the output"
    assert sum(value == "wire open" for value in told.values()) == 2 * (14 - 8)
    assert not any("dead" in value for value in told.values())


def test_a_chain_is_a_row_of_boxes() -> None:
    space = SearchSpace({"a": ("k3", "skip"), "b": ("k3", "k5")}, graph=lambda a: [(0, 1, "k3"), (1, 2, None)])
    html = draw([(0, 1), (1, 2)], [(0, 1, "<k3>"), (1, 2, None)], {"<k3>": 4})
    assert re.findall(r"<li[^>]*>([^<]+)</li>", html) == ["input", "&lt;k3&gt;", "unchanged", "output"]
    assert "--c:var(--h4)" in html and "<svg" not in html
    assert graphs(space, [{"a": "k3", "b": "k5"}])["edges"] == [[0, 1], [1, 2]]
    assert graphs(SearchSpace({"a": ("x", "y")}), [{"a": "x"}]) == {}


def test_arcs_of_one_side_with_the_same_ends_do_not_hide_each_other() -> None:
    edges = [(s, t) for s, t in itertools.combinations(range(6), 2)]
    html = draw(edges, [(s, t, "k3") for s, t in edges], {})
    curves = re.findall(r' d="(M[^"]+)"', html)
    assert len(set(curves)) == len(edges) == 15
    places = re.findall(r'<text class="operation[^>]* x="([^"]+)" y="([^"]+)"', html)
    spots = [(float(x), float(y)) for x, y in places]
    for (x, y), (u, v) in itertools.combinations(spots, 2):
        assert abs(x - u) >= 30 or abs(y - v) >= 14, "two labels on one another"


# Where the winner comes from


def bred(folder: Path, origins: dict[int, tuple[str, tuple[int, ...]]], scores: dict[int, float]) -> Path:
    settle(folder)
    with Log(folder / "scored.parquet", math.inf) as log:
        for number, (how, parents) in origins.items():
            told = {"origin": how} | ({"parents": " ".join(key(chosen(p)) for p in parents)} if parents else {})
            for row in reports(number, 4, scores[number], "complete", **told):
                log.append(row)
    return folder


def test_the_line_of_the_winner_goes_back_to_its_first_ancestor(tmp_path: Path) -> None:
    origins = {
        0: ("random", ()), 1: ("random", ()), 2: ("given", ()), 3: ("mutation", (1,)), 4: ("crossover", (3, 2)),
        5: ("mutation", (4,)), 6: ("random", ()),
    }  # fmt: skip
    scores = {0: 10.0, 1: 20.0, 2: 30.0, 3: 45.0, 4: 50.0, 5: 80.0, 6: 70.0}
    shown = page(bred(tmp_path, origins, scores)).text("lineage")
    steps = [key(chosen(number)) for number in (1, 3, 4, 5)]
    places = [shown.index(f"no. {number + 1} of 7, {name}") for number, name in zip((1, 3, 4, 5), steps, strict=True)]
    assert places == sorted(places)
    assert "20.00 % sampled at random" in shown
    changed = [f"blocks.{i} {a} → {b}" for i in range(3)
               if (a := chosen(4)[f"blocks.{i}"]) != (b := chosen(5)[f"blocks.{i}"])]  # fmt: skip
    assert f"a mutation: {', '.join(changed)}" in shown
    assert re.search(rf"a crossover with\s+{key(chosen(2))}\s+\(30.00 %\)", shown)
    assert "3 steps from the first ancestor to the winner. Of two parents the better one is followed." in shown


@pytest.mark.parametrize(
    ("origins", "words"),
    [
        ({0: ("", ())}, "not noted"),
        ({0: ("model", ())}, "its proposals have no single parent"),
        ({0: ("mutation", (7,))}, f"of {key(chosen(7))}, which this log does not have"),
        ({0: ("random", ())}, "It has no ancestors."),
    ],
)
def test_a_line_that_does_not_go_back_says_why(tmp_path: Path, origins: Any, words: str) -> None:
    if origins[0][0] == "":
        origins = {0: (None, ())}
    assert words in page(bred(tmp_path, origins, {0: 50.0})).text("lineage")


def test_a_long_line_is_folded_in_the_middle(tmp_path: Path) -> None:
    origins = {n: ("mutation", (n - 1,)) if n else ("random", ()) for n in range(20)}
    shown = page(bred(tmp_path, origins, {n: 50.0 + n for n in range(20)})).text("lineage")
    assert "10 more" in shown and "19 steps from the first ancestor" in shown
    assert all(key(chosen(n)) in shown for n in range(20))


# Random search at equal cost


def test_the_expected_best_is_that_of_all_ways_to_draw() -> None:
    values = sorted(Random(1).gauss(70, 5) for _ in range(8))
    for count in range(1, 9):
        ways = [max(few) for few in itertools.combinations(values, count)]
        assert expected_best(values, count) == pytest.approx(statistics.fmean(ways))
    many = [float(rank) for rank in range(1, 10_001)]
    assert expected_best(many, 5000) == pytest.approx(5000 * 10_001 / 5001)
    for count, share in itertools.product((1, 2, 3), (0.1, 0.5, 0.9)):
        ways = sorted(max(few) for few in itertools.product(values, repeat=count))
        assert quantile_of_best(values, count, share) == ways[math.ceil(len(ways) * share - 1e-9) - 1]


def test_random_search_is_estimated_from_what_was_drawn_by_chance(tmp_path: Path) -> None:
    drawn = {n: 50.0 + n for n in range(10)}
    origins: dict[int, Any] = {n: ("random", ()) for n in drawn} | {10: ("mutation", (9,)), 11: ("mutation", (10,))}
    folder = bred(tmp_path, origins, drawn | {10: 75.0, 11: 90.0})
    found = baseline(read_run_data(folder))
    assert isinstance(found, Baseline)
    assert found.costs == [4.0, 8.0, 12.0, 16.0, 20.0], "four seconds each, for half as many as there are"
    assert found.expected[0] == pytest.approx(54.5) and found.expected == sorted(found.expected)
    assert all(low <= mean <= high for low, mean, high in zip(found.low, found.expected, found.high, strict=True))
    shown = page(folder).text("progress")
    expected = statistics.fmean(max(few) for few in itertools.combinations(drawn.values(), 5))
    assert f"For the cost of full scores of 5 random architectures the search had 54.00 %; random search (grey) may " \
           f"expect {expected:.2f} %" in shown  # fmt: skip
    assert "Estimated from the 10 architectures that the search itself drew by chance" in shown


@pytest.mark.parametrize("agrees", [True, False])
def test_a_sample_beside_the_search_is_used_if_its_scores_are_those_of_the_search(tmp_path: Path, agrees: bool) -> None:
    origins: dict[int, Any] = {n: ("random", ()) for n in range(2)} | {2: ("mutation", (1,))}
    folder = bred(tmp_path, origins, {0: 50.0, 1: 55.0, 2: 60.0})
    with Log(folder / "sample", math.inf) as log:
        for number in range(9):
            score = (50.0 if agrees else 1.5) + 5 * number
            for row in reports(number, 4, score, "complete", searcher="random"):
                log.append(row)
    found = baseline(read_run_data(folder))
    if agrees:
        assert isinstance(found, Baseline) and len(found.costs) == 4
        assert found.note.startswith("Estimated from the 9 random architectures that were scored beside the search")
    else:
        assert found == (
            "No random baseline: it takes 8 architectures that were drawn by chance and scored, this run has 2."
        )


def test_a_log_without_origins_has_no_baseline_and_low_scores_may_be_good(tmp_path: Path) -> None:
    old = page(fill(tmp_path / "old")).text("progress")
    assert "the log does not say which architectures were drawn by chance" in old
    folder = settle(tmp_path / "low")
    with Log(folder / "scored.parquet", math.inf, objective=Objective("loss", "min")) as log:
        for number in range(10):
            for row in reports(number, 4, 1.0 + number, "complete", metrics={"loss": 1.0}, searcher="random"):
                log.append(row)
    rows = [{"key": key(chosen(n)), "architecture": chosen(n), "score": 1.0 + n, "fidelity": 4, "final_score": 1.0 + n}
            for n in (0, 1)]  # fmt: skip
    (folder / "leaderboard.json").write_text(json.dumps(rows))
    found = baseline(read_run_data(folder))
    assert isinstance(found, Baseline) and found.expected == sorted(found.expected, reverse=True)
    assert all(low <= mean <= high for low, mean, high in zip(found.low, found.expected, found.high, strict=True))


def test_what_is_far_worse_is_brought_to_the_edge() -> None:
    near = far([10.0, 88.0, 89.0, 90.0, 91.0])
    assert near(10.0) == 80.0 and near(88.0) == 88.0 and near(91.0) == 91.0
    assert far([10.0, 88.0, 89.0, 90.0, 91.0], keep=[70.0])(10.0) == 70.0
    near = far([1e9, 1.0, 2.0, 3.0, 4.0], "min")
    assert near(1e9) < 20 and near(4.0) == 4.0
    assert far([5.0, 5.0])(5.0) == 5.0 and far([])(0.0) == 0.0


# In a browser

PROBE = """(() => { const d = document, e = d.documentElement, boxes = s => [...d.querySelectorAll(s)].map(x => {
    const b = x.getBoundingClientRect(); return [b.width, b.height]; });
  return { wide: e.scrollWidth, room: e.clientWidth, plots: boxes("svg.plot"), wires: boxes("svg.wires"),
    line: boxes(".line > li"),
    back: getComputedStyle(d.body).backgroundColor, ink: getComputedStyle(d.querySelector("svg text")).fill,
    letters: Math.min(...[...d.querySelectorAll("p, li, td")].map(x => parseInt(getComputedStyle(x).fontSize))),
  }; })()"""


def with_everything(folder: Path) -> Path:
    """A run with a cell for a winner, ancestors, and a sample of random architectures."""
    retrain(finish(fill(folder)))
    parent = {"origin": "mutation", "parents": key(chosen(0))}
    with Log(folder / "scored.parquet", math.inf) as log:
        for number in range(10, 20):
            for row in reports(number, 4, 60.0 + number / 10, "complete", origin="random", macs=3_000_000):
                log.append(row)
        for row in reports(3, 4, 83.75, "complete", time=START + timedelta(seconds=99), **parent):
            log.append(row)
    taken = [(0, 1, "k3"), (0, 2, "k5"), (1, 3, None), (2, 3, "k3")]
    edges = list(itertools.combinations(range(4), 2))
    (folder / "graphs.json").write_text(json.dumps({"edges": edges, "architectures": {key(chosen(3)): taken}}))
    return folder


@pytest.mark.parametrize(
    ("width", "dark"), [(1200, False), (1200, True), (390, False), (390, True)],
    ids=["desk, light", "desk, dark", "phone, light", "phone, dark"],
)  # fmt: skip
def test_the_page_in_a_browser(tmp_path: Path, width: int, dark: bool) -> None:
    shown, complaints = look(write_report(with_everything(tmp_path)), width, dark=dark, script=PROBE)
    assert complaints == [], "nothing on the console, nothing loaded from elsewhere"
    assert len(shown["plots"]) == 6, "two fronts, three of the best so far, the training"
    assert len(shown["wires"]) == 1 and len(shown["line"]) == 2, "the winner as a graph, and its parent"
    for wide, high in [*shown["plots"], *shown["wires"]]:
        assert wide > 250 and 100 < high < 450, "each is there, and one that stands alone in its row does not swell"
    assert shown["wide"] == shown["room"] == width, "nothing sticks out to the side"
    assert shown["letters"] >= 12, "a phone shows nothing too small to read"
    back, ink = (sum(map(int, re.findall(r"\d+", shown[name])[:3])) / 3 for name in ("back", "ink"))
    assert (back < 60 and ink > 140) if dark else (back > 230 and ink < 120)


def test_the_browser_hears_complaints(tmp_path: Path) -> None:
    """The control: a page that does complain."""
    bad = tmp_path / "bad.html"
    bad.write_text("<!doctype html><img src='http://127.0.0.1:9/x.png'><script>console.error('no'); nothing()</script>")
    _, complaints = look(bad, 400, dark=False, script="1")
    assert {event["method"] for event in complaints} >= {
        "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.requestWillBeSent"}  # fmt: skip
