from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest

from raynas.architecture import enumerate_all, key
from raynas.exceptions import UnsatisfiableError
from raynas.search_space.sampler import ArchitectureSampler
from raynas.search_space.space import SearchSpace
from raynas.testing.searcher import RARE, SMALL

LARGE = {f"b{i}": tuple("abcd") for i in range(20)}


def test_bad_spaces() -> None:
    with pytest.raises(ValueError, match="at least one decision"):
        SearchSpace({})
    with pytest.raises(ValueError, match="'x' needs distinct options"):
        SearchSpace({"x": ()})
    with pytest.raises(ValueError, match="'x' needs distinct options"):
        SearchSpace({"x": ("a", "a")})


def test_draws_are_uniform_over_a_chain() -> None:
    sampler = ArchitectureSampler(SearchSpace({"a": ("1", "2"), "b": ("1", "2", "3")}))
    counts = Counter(key(sampler.sample_new(Random(i), set())) for i in range(6000))
    assert len(counts) == 6
    assert all(abs(count - 1000) < 150 for count in counts.values())  # five standard deviations


def test_a_draw_depends_on_its_arguments_alone() -> None:
    for space in (SMALL, RARE):
        used, new = ArchitectureSampler(space), ArchitectureSampler(space)
        for i in range(20):
            used.sample_new(Random(i), set())
        taken = {key(a) for i in range(3) if (a := new.sample_new(Random(f"t{i}"), set()))}
        assert used.sample_new(Random("x"), taken) == ArchitectureSampler(space).sample_new(Random("x"), taken)


def test_two_sided_limits_of_a_large_space_are_met() -> None:
    def violation(architecture: dict[str, str]) -> float:
        cost = sum("abcd".index(option) * (i + 1) for i, option in enumerate(architecture.values()))
        return max(0, 500 - cost, cost - 503) / 100  # of 0 to 630, mean 315

    sampler = ArchitectureSampler(SearchSpace(LARGE, violation=violation))
    found = [sampler.sample_new(Random(i), set()) for i in range(20)]
    assert all(a is not None and violation(a) == 0 for a in found)
    assert len({key(a) for a in found if a}) > 15


def test_an_unsatisfiable_constraint_is_given_up_after_a_bounded_number_of_attempts() -> None:
    calls = 0

    def violation(architecture: dict[str, str]) -> float:
        nonlocal calls
        calls += 1
        return 7.0 + sum(option != "a" for option in architecture.values())

    with pytest.raises(UnsatisfiableError, match=r"of 1\.1e\+12.*violation of 7 .*'b0': 'a'"):
        ArchitectureSampler(SearchSpace(LARGE, violation=violation)).sample_new(Random(0), set())
    assert calls < 2500


def test_nan_and_infinity_are_not_feasible() -> None:
    space = SearchSpace({"a": ("1", "2", "3")}, violation=lambda a: {"1": math.nan, "2": math.inf, "3": -1.0}[a["a"]])
    sampler = ArchitectureSampler(space)
    assert sampler.sample_new(Random(0), set()) == {"a": "3"}
    assert sampler.sample_new(Random(0), {key({"a": "3"})}) is None


def test_the_last_feasible_architecture_of_a_small_space_is_found() -> None:
    wanted = next(a for i, a in enumerate(enumerate_all({f"b{i}": tuple("abcd") for i in range(8)})) if i == 54_321)
    # No hint: the violation says only that it is missed.
    space = SearchSpace({f"b{i}": tuple("abcd") for i in range(8)}, violation=lambda a: 0.0 if a == wanted else 1.0)
    assert ArchitectureSampler(space).sample_new(Random(0), set()) == wanted


def test_giving_up_in_a_large_space_is_said(caplog: pytest.LogCaptureFixture) -> None:
    only = {name: "c" for name in LARGE}
    sampler = ArchitectureSampler(SearchSpace(LARGE, violation=lambda a: float(sum(a[name] != "c" for name in a))))
    assert sampler.sample_new(Random(0), set()) == only
    assert sampler.sample_new(Random(1), {key(only)}) is None
    assert "the space counts as exhausted" in caplog.text


def test_a_deeply_nested_space_of_few_architectures_takes_few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Depth as nested choices: of uniform draws over the options one in 2**40 has the full depth."""
    decisions = {".".join(["0"] + ["deeper.0"] * level): ("deeper", "stop") for level in range(40)}
    forms = []
    space = SearchSpace(decisions, canonical=lambda form: forms.append(form) or form)  # type: ignore[func-returns-value]
    sampler, taken = ArchitectureSampler(space), set[str]()
    while (found := sampler.sample_new(Random(len(taken)), taken)) is not None:
        taken.add(key(found))
    assert len(taken) == 41
    assert len(forms) < 41 * 5
