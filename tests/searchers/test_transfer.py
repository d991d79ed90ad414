"""A warm start from the scores of another search."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import mean

import numpy as np
import pytest

from raynas.architecture import Architecture, enumerate_all, key, sample
from raynas.exceptions import ArchitectureError
from raynas.search_space.space import SearchSpace
from raynas.searchers import (
    TPE,
    ArchitectureSearcher,
    Bayes,
    Evolution,
    LocalSearch,
    Predictor,
    RandomSearch,
    RegularizedEvolution,
    Reinforce,
)
from raynas.searchers.models.encoder import Encoder
from raynas.searchers.models.transfer import SourceModel
from raynas.testing.searcher import CHAIN, NESTED, Player, preference

OURS = (TPE, Bayes, Evolution, LocalSearch, Predictor, RandomSearch, RegularizedEvolution, Reinforce)
Source = list[tuple[Architecture, float]]


def relative(architecture: Architecture) -> float:
    """Another task: of another scale, and of another opinion on one decision."""
    return 10 * preference({name: o for name, o in architecture.items() if name != "block5"}) - 40


def source(count: int = 60, score: Callable[[Architecture], float] = relative, space: SearchSpace = CHAIN) -> Source:
    rng = Random(7)
    drawn = [space.form(sample(space.decisions, rng)) for _ in range(count)]
    return [(architecture, score(architecture)) for architecture in drawn]


def shuffled(pairs: Source) -> Source:
    scores = [score for _, score in pairs]
    Random(1).shuffle(scores)
    return [(architecture, score) for (architecture, _), score in zip(pairs, scores, strict=True)]


def best_three(pairs: Source) -> list[Architecture]:
    distinct = {key(architecture): (score, architecture) for architecture, score in pairs}.values()
    return [architecture for _, architecture in sorted(distinct, key=lambda pair: -pair[0])[:3]]


@pytest.mark.parametrize("make", OURS)
def test_the_best_that_keep_the_limits_come_first(make: type[ArchitectureSearcher]) -> None:
    limited = SearchSpace(CHAIN.decisions, violation=lambda a: float(a["block0"] == "d"))
    pairs = source()
    kept = best_three([(a, s) for a, s in pairs if a["block0"] != "d"])
    assert kept != best_three(pairs)
    point = next(a for a in enumerate_all(CHAIN.decisions) if a["block0"] == "b")
    searcher = make(limited, points_to_evaluate=[point])
    searcher.warm_start(pairs)
    assert Player().play(searcher, 12)[:4] == [point, *kept]


def test_the_mode_says_which_are_the_best() -> None:
    searcher = RandomSearch(CHAIN, mode="min")
    searcher.warm_start([(a, -s) for a, s in source()])
    assert Player().play(searcher, 3) == best_three(source())


@pytest.mark.parametrize("make", [Bayes, Predictor])
def test_models_learn_from_a_related_source_and_ignore_a_shuffled_one(make: type[ArchitectureSearcher]) -> None:
    """The best of 14 evaluations, the points left out: what the model made of the source."""

    def reached(pairs: Source) -> float:
        best = []
        for seed in range(3):
            searcher = make(CHAIN, seed=seed)
            if pairs:
                searcher.warm_start(pairs, best=0)
            best.append(max(map(preference, Player().play(searcher, 14))))
        return mean(best)

    top = sum(max(preference({name: o}) for o in options) for name, options in CHAIN.decisions.items())
    cold, related, noise = reached([]), reached(source()), reached(shuffled(source()))
    assert related > max(cold, noise) and top - related < 0.3
    assert noise > cold - 0.5


def test_minimises_as_it_maximises() -> None:
    up, down = Bayes(CHAIN, mode="max"), Bayes(CHAIN, mode="min")
    up.warm_start(source())
    down.warm_start([(a, -s) for a, s in source()])
    assert Player().play(up, 12) == Player(lambda a: -preference(a)).play(down, 12)


def test_a_source_without_structure_makes_expect_the_same_of_all() -> None:
    spread = []
    for pairs in (source(150), shuffled(source(150))):
        searcher = RandomSearch(CHAIN)
        searcher.warm_start(pairs)
        asked = [a for a, _ in source(400)[150:]]
        values = SourceModel(CHAIN, searcher.source, searcher.goodness).prior_mean(Encoder(CHAIN)(asked))
        assert values.shape == (len(asked), 1)
        spread.append(values.std())
        if not spread[1:]:
            assert np.corrcoef(values[:, 0], [relative(a) for a in asked])[0, 1] > 0.95
    assert spread[1] < 0.1 * spread[0]


@pytest.mark.parametrize("make", [Bayes, Predictor, RandomSearch])
def test_saved_and_restored_with_its_source(make: type[ArchitectureSearcher], tmp_path: Path) -> None:
    def fresh(pairs: Source) -> ArchitectureSearcher:
        searcher = make(CHAIN, seed=2)
        if pairs:
            searcher.warm_start(pairs)
        return searcher

    searcher = fresh(source())
    Player().play(searcher, 12)
    searcher.save(str(tmp_path / "state"))
    restored = fresh(source())
    restored.restore(str(tmp_path / "state"))
    assert [restored.suggest(f"n{i}") for i in range(3)] == [searcher.suggest(f"n{i}") for i in range(3)]
    for other in (source(59), shuffled(source()), []):
        with pytest.raises(ValueError, match="another source"):
            fresh(other).restore(str(tmp_path / "state"))


def test_scores_of_several_fidelities_and_nested_decisions() -> None:
    drawn = [a for a, _ in source(40, preference, NESTED)]
    worst = min(drawn, key=preference)
    pairs = [(a, {1: preference(a) - 1, 2: math.nan} if a == worst else {1: preference(a) - 1, 2: preference(a)})
             for a in drawn]  # fmt: skip
    searcher = Bayes(NESTED)
    searcher.warm_start([*pairs, (dict(worst), {1: 99.0})])
    # Stopped early, so behind all others, whatever its score.
    assert searcher.source[-1].scores == {1: 99.0} and worst not in searcher.points
    assert len(Player().play(searcher, 30)) == 30


def test_bad_sources() -> None:
    with pytest.raises(ArchitectureError, match="block0"):
        RandomSearch(CHAIN).warm_start([({"block0": "z"}, 1.0)])
    with pytest.raises(ValueError, match="no finite score"):
        RandomSearch(CHAIN).warm_start([(source()[0][0], math.nan)])
    searcher = RandomSearch(CHAIN)
    searcher.suggest("t")
    with pytest.raises(ValueError, match="comes first"):
        searcher.warm_start(source())
