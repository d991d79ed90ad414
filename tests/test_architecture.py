"""Architectures as plain data: checking, drawing, changing, counting."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from random import Random

import pytest

from raynas import architecture as arch

FLAT = {"a": ("x", "y", "z"), "b": ("x", "y")}
# "a.y.w" and "a.y.w.big.k" stand under options; the inner ones are listed first on purpose.
NESTED = {"a.y.w.big.k": ("3", "5"), "a.y.w": ("big", "small"), "a": ("x", "y"), "b": ("p", "q")}


def test_canonical_keeps_the_decisions_order() -> None:
    assert list(arch.canonical(FLAT, {"b": "y", "a": "z"})) == ["a", "b"]


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ({"a": "x", "b": "x", "c": "x"}, ["'c'", "'a'", "'b'"]),
        ({"a": "x"}, ["'b'", "missing", "'x'", "'y'"]),
        ({"a": "x", "b": "z"}, ["'b'", "'z'", "'x'", "'y'"]),
    ],
)
def test_errors_name_the_bad_value_and_the_legal_ones(architecture: dict[str, str], words: list[str]) -> None:
    with pytest.raises(arch.ArchitectureError) as caught:
        arch.canonical(FLAT, architecture)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


def test_long_lists_in_errors_are_cut() -> None:
    many = {f"block{i}": ("x",) for i in range(1000)}
    with pytest.raises(arch.ArchitectureError, match=r"1000 in all") as caught:
        arch.canonical(many, {"nothing": "x"})
    assert len(str(caught.value)) < 1000


def test_inactive_decisions_are_dropped() -> None:
    full = {"a": "x", "a.y.w": "big", "a.y.w.big.k": "3", "b": "p"}
    assert arch.canonical(NESTED, full) == {"a": "x", "b": "p"}
    assert arch.canonical(NESTED, {**full, "a": "y", "a.y.w": "small"}) == {"a.y.w": "small", "a": "y", "b": "p"}


def test_parent_is_the_nearest_decision_and_option() -> None:
    assert arch.parent(NESTED, "a.y.w.big.k") == ("a.y.w", "big")
    assert arch.parent(NESTED, "a.y.w") == ("a", "y")
    assert arch.parent(NESTED, "a") is None


def test_key_depends_on_content_alone() -> None:
    assert arch.key({"a": "x", "b": "y"}) == arch.key({"b": "y", "a": "x"})
    assert arch.key({"a": "x", "b": "y"}) != arch.key({"a": "y", "b": "x"})
    code = "from raynas.architecture import key; print(key({'a': 'x', 'b': 'y'}))"
    other_process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other_process.stdout.strip() == arch.key({"a": "x", "b": "y"})


def test_architecture_imports_neither_torch_nor_ray() -> None:
    code = "import sys, raynas.architecture; print([m for m in ('torch', 'ray', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("decisions", [FLAT, NESTED])
def test_enumeration_is_complete_and_without_repetition(decisions: dict[str, tuple[str, ...]]) -> None:
    listed = list(arch.enumerate_all(decisions))
    assert len(listed) == arch.size(decisions) == len({arch.key(a) for a in listed})
    assert all(arch.canonical(decisions, a) == a for a in listed)
    drawn = {arch.key(arch.sample(decisions, rng)) for rng in [Random(0)] for _ in range(300)}
    assert drawn == {arch.key(a) for a in listed}


def test_size_counts_nested_decisions_where_they_are_active() -> None:
    # b: 2; a: x, or y with w: small, or big with one of two k.
    assert arch.size(NESTED) == 2 * (1 + (1 + 2))


def test_sampling_repeats_with_its_seed() -> None:
    first, second = Random(7), Random(7)
    assert [arch.sample(NESTED, first) for _ in range(20)] == [arch.sample(NESTED, second) for _ in range(20)]


def test_mutation_always_changes_something_and_stays_legal() -> None:
    rng = Random(0)
    for _ in range(300):
        parent = arch.sample(NESTED, rng)
        before = dict(parent)
        child = arch.mutate(NESTED, parent, rng, probability=0.1)
        assert parent == before
        assert child != parent
        assert arch.canonical(NESTED, child) == child


def test_mutation_rate() -> None:
    decisions = {str(i): ("x", "y", "z") for i in range(50)}
    rng = Random(0)
    parent = dict.fromkeys(decisions, "x")
    changes = [sum(o != "x" for o in arch.mutate(decisions, parent, rng, 0.1).values()) for _ in range(400)]
    assert 4.5 < sum(changes) / len(changes) < 5.5
    assert all(sum(o != "x" for o in arch.mutate(decisions, parent, rng, 0.0).values()) == 1 for _ in range(20))


def test_mutation_without_an_alternative_returns_the_parent() -> None:
    assert arch.mutate({"a": ("x",)}, {"a": "x"}, Random(0)) == {"a": "x"}


def test_crossover_takes_every_decision_from_a_parent() -> None:
    rng = Random(0)
    first, second = {"a": "x", "b": "x"}, {"a": "y", "b": "y"}
    children = {tuple(arch.crossover(FLAT, first, second, rng).values()) for _ in range(100)}
    assert children == {("x", "x"), ("x", "y"), ("y", "x"), ("y", "y")}
    for _ in range(100):
        child = arch.crossover(NESTED, arch.sample(NESTED, rng), arch.sample(NESTED, rng), rng)
        assert arch.canonical(NESTED, child) == child


def test_encode_is_one_hot_and_zero_where_inactive() -> None:
    assert arch.encode(FLAT, {"a": "y", "b": "x"}) == [0, 1, 0, 1, 0]
    code = arch.encode(NESTED, {"a": "x", "b": "q"})
    assert code == [0, 0, 0, 0, 1, 0, 0, 1]


def test_architectures_of_uneven_shape_are_equally_probable() -> None:
    depth = {".".join(["0"] + ["deeper.0"] * level): ("deeper", "stop") for level in range(6)}
    for decisions in (depth, NESTED, {**depth, "width": ("1", "2", "3")}):
        counts, rng = arch.option_counts(decisions), Random(0)
        drawn = Counter(arch.key(arch.sample_uniform(decisions, rng, counts)) for _ in range(6000))
        expected = 6000 / arch.size(decisions)
        assert set(drawn) == {arch.key(each) for each in arch.enumerate_all(decisions)}
        assert all(abs(count - expected) < 5 * expected**0.5 for count in drawn.values())


def test_without_nested_decisions_the_draw_is_the_plain_one() -> None:
    decisions = {"a": ("1", "2"), "b": ("1", "2", "3")}
    for seed in range(20):
        drawn = arch.sample_uniform(decisions, Random(seed), arch.option_counts(decisions))
        assert drawn == arch.sample(decisions, Random(seed))
