from collections import Counter

import pytest

from raynas.training.path_sampling import ConstrainedPaths, FairPaths, ProportionalPaths, UniformPaths

DECISIONS = {"a": ("x", "y", "z"), "b": ("x", "y", "z"), "c": ("l", "r")}


@pytest.mark.parametrize("make", [UniformPaths, FairPaths])
def test_a_step_draws_the_same_paths_whenever_it_is_asked(make):
    once = [make(DECISIONS, 3)(step) for step in range(50)]
    assert once == [make(DECISIONS, 3)(step) for step in range(50)]
    assert [make(DECISIONS, 3)(step) for step in reversed(range(50))] == once[::-1]
    assert once != [make(DECISIONS, 4)(step) for step in range(50)]


def test_uniform_paths_take_every_option_equally_often():
    sampler = UniformPaths(DECISIONS)
    drawn = [sampler(step)[0] for step in range(3000)]
    for name, options in DECISIONS.items():
        counts = Counter(path[name] for path in drawn)
        expected = 3000 / len(options)
        # Five standard deviations of a binomial: a fair draw misses this about once in a million.
        assert all(abs(counts[o] - expected) < 5 * expected**0.5 for o in options), counts


def test_proportional_paths_come_as_often_as_they_are_large():
    sizes = {("x", "l"): 10, ("x", "r"): 20, ("y", "l"): 30, ("y", "r"): 40}

    def size(path):
        return sizes[path["a"], path["b"]]

    # The largest is not known exactly: where samples understate it, nothing larger is refused.
    for largest, weights in ((40, (10, 20, 30, 40)), (25, (10, 20, 25, 25))):
        sampler = ProportionalPaths({"a": ("x", "y"), "b": ("l", "r")}, size, largest)
        drawn = Counter(size(sampler(step)[0]) for step in range(4000))
        for (_, count), weight in zip(sorted(drawn.items()), weights, strict=True):
            expected = 4000 * weight / sum(weights)
            assert abs(count - expected) < 5 * expected**0.5, drawn
    assert sampler(7) == sampler(7)
    rare = ProportionalPaths({"a": ("x",), "b": ("l",)}, size, 1e9, attempts=3)
    assert rare(0) == [{"a": "x", "b": "l"}]


def test_fair_paths_use_every_option_exactly_once_a_step():
    sampler = FairPaths(DECISIONS)
    for step in range(40):
        paths = sampler(step)
        assert len(paths) == 3
        for name in ("a", "b"):
            assert sorted(path[name] for path in paths) == ["x", "y", "z"]


def test_fair_paths_never_let_an_option_of_a_smaller_decision_run_ahead():
    sampler = FairPaths(DECISIONS)
    counts = Counter()
    for step in range(100):
        for path in sampler(step):
            counts[path["c"]] += 1
            assert abs(counts["l"] - counts["r"]) <= 1


def test_constrained_paths_fill_the_window_evenly():
    decisions = {f"d{i}": ("0", "1") for i in range(10)}

    def macs(path):
        return sum(int(option) for option in path.values())

    sampler = ConstrainedPaths(decisions, macs, (2.5, 8.5), bins=6)
    counts = Counter(macs(sampler(step)[0]) for step in range(1200))
    assert set(counts) == {3, 4, 5, 6, 7, 8}
    # Uniform sampling would take 5 about 5.6 times as often as 8.
    assert max(counts.values()) < 1.5 * min(counts.values())


def test_constrained_paths_give_the_nearest_where_the_window_is_empty():
    sampler = ConstrainedPaths({"a": ("0", "1")}, lambda path: float(path["a"]), (4.0, 5.0), attempts=20)
    assert sampler(0) == [{"a": "1"}]
