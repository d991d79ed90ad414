"""Conformance tests to inherit: what a searcher must do to be usable with RayNAS, in anyone's test suite.

A searcher of your own is checked by one class with one method::

    from raynas.testing.searcher import SearcherContract

    class TestMine(SearcherContract):
        def make(self, space, **keywords):
            return Mine(space, **keywords)

pytest collects it (``pytest test_mine.py``); nothing here needs Ray to be started.
"""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from ray import cloudpickle as _cloudpickle
from ray.tune.experiment import Trial
from ray.tune.search import ConcurrencyLimiter, Searcher

from raynas.architecture import Architecture, enumerate_all, key
from raynas.search_space.space import SearchSpace
from raynas.testing.other_process import run_in_other_process
from raynas.testing.search_spaces import CHAIN, NESTED, PRICED, RARE, SMALL, preference

cloudpickle: Any = _cloudpickle  # has no types

__all__ = ["CHAIN", "NESTED", "PRICED", "RARE", "SMALL", "Player", "SearcherContract", "preference"]


class Player:
    """Simulates Tune: requests trials of a searcher, keeps some in flight and completes them in a random order.

    Args:
        score: What the trial of an architecture reports.
        in_flight: At most so many trials are outstanding.
        seed: Of the order in which they complete.
    """

    def __init__(self, score: Callable[[Architecture], float] = preference, in_flight: int = 1, seed: int = 0) -> None:
        self.score = score
        self.in_flight = in_flight
        self.proposed: list[Architecture] = []
        self.completed: list[Architecture] = []
        self.finished = False
        self._outstanding: dict[str, Architecture] = {}
        self._rng = Random(seed)

    def play(self, searcher: Searcher, count: int) -> list[Architecture]:
        """Continue until ``count`` more architectures were proposed, or there is no other; return these."""
        start = len(self.proposed)
        while not self.finished and len(self.proposed) < start + count:
            trial = f"trial{len(self.proposed)}"
            suggestion: Any = searcher.suggest(trial) if len(self._outstanding) < self.in_flight else None
            if suggestion == Searcher.FINISHED:
                self.finished = True
                for unfinished in list(self._outstanding):
                    self._complete(searcher, unfinished)
            elif suggestion is None:
                assert self._outstanding, "the searcher waits for a result, but no trial is in flight"
                self._complete(searcher, self._rng.choice(list(self._outstanding)))
            else:
                self.proposed.append(suggestion["architecture"])
                self._outstanding[trial] = suggestion["architecture"]
        return self.proposed[start:]

    def _complete(self, searcher: Searcher, trial: str) -> None:
        architecture = self._outstanding.pop(trial)
        result = {"score": self.score(architecture), "training_iteration": 1, "trial_id": trial}
        # Tune passes these by keyword.
        searcher.on_trial_result(trial_id=trial, result=result)
        searcher.on_trial_complete(trial_id=trial, result=result, error=False)
        self.completed.append(architecture)


class SearcherContract:
    """Inherit this and say how your searcher is made.

    Attributes:
        replays_in_any_order: Whether the searcher goes on the same after a replay in another order than that of the
            original run. Set it to False where the order of observations matters to the model.
    """

    replays_in_any_order = True

    def make(self, space: SearchSpace, **keywords: Any) -> Searcher:
        """Make the searcher; ``keywords``: some of ``seed``, ``mode`` and ``points_to_evaluate``."""
        raise NotImplementedError

    def check(self, space: SearchSpace, proposed: list[Architecture]) -> None:
        """All are canonical (so legal) and feasible, and none comes twice."""
        for architecture in proposed:
            assert space.form(architecture) == architecture, f"not canonical: {architecture}"
            assert space.violation is None or space.violation(architecture) == 0, f"not feasible: {architecture}"
        assert len(set(map(key, proposed))) == len(proposed), "an architecture was proposed twice"

    def test_is_an_ordinary_searcher_of_tune(self) -> None:
        """Tune can take it: a ``Searcher``, no wrapper, picklable when new."""
        searcher = self.make(CHAIN)
        assert isinstance(searcher, Searcher)
        # Tune takes a searcher with this attribute for a wrapper around another.
        assert not hasattr(searcher, "searcher")
        assert Player().play(cloudpickle.loads(cloudpickle.dumps(searcher)), 5) == Player().play(searcher, 5)

    def test_proposes_legal_canonical_new_architectures(self) -> None:
        """Seventy proposals, none of them twice."""
        proposed = Player().play(self.make(CHAIN), 70)
        assert len(proposed) == 70
        self.check(CHAIN, proposed)

    def test_proposes_nested_decisions_only_where_they_are_active(self) -> None:
        """A decision under an unchosen option is not part of the architecture."""
        searcher, player = self.make(NESTED), Player()
        self.check(NESTED, player.play(searcher, 30))
        assert {architecture["depth"] for architecture in player.proposed} == {"1", "2", "3"}

    def test_proposes_given_points_first(self) -> None:
        """``points_to_evaluate`` come first, in their order."""
        points = list(enumerate_all(CHAIN.decisions))[100:103]
        proposed = Player().play(self.make(CHAIN, points_to_evaluate=points), 20)
        assert proposed[:3] == points
        self.check(CHAIN, proposed)

    def test_same_seed_same_sequence(self) -> None:
        """The seed decides, and another seed makes a difference."""
        first, same, other = (Player().play(self.make(CHAIN, seed=seed), 40) for seed in (1, 1, 2))
        assert first == same
        assert first != other

    def test_same_seed_same_sequence_in_another_process(self) -> None:
        """Neither the process nor its string hashes matter."""
        play = (type(self), 70, 3)
        assert _run_elsewhere(type(self), play) == _play(*play)

    def test_goes_on_the_same_after_save_and_restore(self, tmp_path: Path) -> None:
        """Saved in the middle, with trials in flight, into a searcher newly made."""
        for space, already in ((CHAIN, 64), (NESTED, 23)):
            searcher, player = self.make(space, seed=3), Player(in_flight=3)
            player.play(searcher, already)
            searcher.save(str(tmp_path / "state"))
            again, restored = copy.deepcopy(player), self.make(space, seed=3)
            restored.restore(str(tmp_path / "state"))
            assert again.play(restored, 20) == player.play(searcher, 20)

    def test_replay_goes_on_as_if_never_interrupted(self) -> None:
        """Rebuilt from the scores alone, by ``add_evaluated_point``."""
        whole = Player().play(self.make(CHAIN, seed=5), 80)
        for shuffled in (False, True):
            done, searcher = whole[:60], self.make(CHAIN, seed=5)
            if shuffled:
                Random(0).shuffle(done)
            for architecture in done:
                searcher.add_evaluated_point({"architecture": architecture}, preference(architecture))
            rest = Player().play(searcher, 20)
            self.check(CHAIN, done + rest)
            if not shuffled or self.replays_in_any_order:
                assert rest == whole[60:]

    def test_replay_of_strangers(self) -> None:
        """Scores of architectures that it would not have proposed itself; none is proposed again."""
        strangers = list(enumerate_all(CHAIN.decisions))[:1000:10]
        searcher = self.make(CHAIN)
        for architecture in strangers:
            searcher.add_evaluated_point({"architecture": architecture}, preference(architecture))
        self.check(CHAIN, strangers + Player().play(searcher, 40))

    def test_many_in_flight(self) -> None:
        """Sixteen trials at once, completing in any order."""
        searcher, player = self.make(CHAIN), Player(in_flight=16)
        self.check(CHAIN, player.play(searcher, 90))
        assert len(player.proposed) == 90

    def test_goes_on_after_errors_and_nan(self) -> None:
        """A failed trial and a score of NaN neither stop it nor come again."""
        searcher = self.make(CHAIN)
        proposed: list[Architecture] = []
        for index in range(70):
            trial = f"trial{index}"
            suggestion: Any = searcher.suggest(trial)
            proposed.append(suggestion["architecture"])
            result = {"score": preference(proposed[-1]), "training_iteration": 1}
            if index % 4 == 0:
                searcher.on_trial_complete(trial_id=trial, error=True)
            elif index % 4 == 1:
                searcher.on_trial_result(trial_id=trial, result={**result, "score": math.nan})
                searcher.on_trial_complete(trial_id=trial, result={**result, "score": math.nan})
            else:
                searcher.on_trial_complete(trial_id=trial, result=result)
        self.check(CHAIN, proposed)

    def test_goes_on_where_everything_fails(self) -> None:
        """Not a single finite score, ever."""
        self.check(CHAIN, Player(score=lambda _: math.nan).play(self.make(CHAIN), 70))

    def test_ends_having_tried_everything(self) -> None:
        """``Searcher.FINISHED``, once every feasible network of a small space was proposed."""
        for space in (SMALL, NESTED):
            for in_flight in (1, 4):
                searcher, player = self.make(space), Player(in_flight=in_flight)
                player.play(searcher, 1000)
                self.check(space, player.proposed)
                assert len(player.proposed) == _networks(space)
                more: Any = searcher.suggest("one more")
                assert more == Searcher.FINISHED

    def test_finds_feasible_architectures_where_they_are_rare(self) -> None:
        """One architecture in a thousand meets the constraint."""
        proposed = Player().play(self.make(RARE), 60)
        assert len(proposed) == 60
        self.check(RARE, proposed)

    def test_fails_clearly_where_nothing_is_feasible(self) -> None:
        """One line that says how close the space comes to the constraint."""

        def violation(architecture: Architecture) -> float:
            return 1.25 + sum(option in ("x", "2", "3") for option in architecture.values())

        for decisions in (SMALL.decisions, RARE.decisions):
            try:
                self.make(SearchSpace(decisions, violation=violation)).suggest("trial")
            except ValueError as error:
                assert "1.25" in str(error) and "\n" not in str(error), f"unclear: {error}"
            else:
                raise AssertionError("no error, although nothing is feasible")

    def test_minimises_as_it_maximises(self) -> None:
        """The negative score with mode "min" leads to the same sequence."""
        maximised = Player().play(self.make(CHAIN, mode="max"), 70)
        assert Player(score=lambda a: -preference(a)).play(self.make(CHAIN, mode="min"), 70) == maximised

    def test_finds_a_front_or_says_that_it_cannot(self) -> None:
        """With a cost beside the score: refused in one line, or proposals like any other, the same after a replay."""
        try:
            searcher = self.make(PRICED, seed=2)
        except ValueError as error:
            assert "price" in str(error) and "\n" not in str(error), f"unclear: {error}"
            return
        whole = Player().play(searcher, 60)
        self.check(PRICED, whole)
        again = self.make(PRICED, seed=2)
        for architecture in whole[:50]:
            again.add_evaluated_point({"architecture": architecture}, preference(architecture))
        assert Player().play(again, 10) == whole[50:]

    def test_takes_metric_and_mode_from_tune(self) -> None:
        """A metric and mode that were not given to the searcher are those of Tune."""
        searcher = self.make(CHAIN)
        searcher.set_search_properties("loss", "min", {})
        assert (searcher.metric, searcher.mode) == ("loss", "min")

    def test_restores_the_saved_seed(self, tmp_path: Path) -> None:
        """A searcher made with another seed continues the saved search."""
        searcher, restored = self.make(CHAIN, seed=3), self.make(CHAIN, seed=4)
        player = Player(in_flight=2)
        player.play(searcher, 24)
        Player().play(restored, 24)  # what it has computed for its own seed must not be used
        searcher.save(str(tmp_path / "state"))
        restored.restore(str(tmp_path / "state"))
        again = copy.deepcopy(player)
        assert again.play(restored, 10) == player.play(searcher, 10)

    def test_works_under_a_concurrency_limiter(self) -> None:
        """Tune's ``ConcurrencyLimiter`` around it makes no difference to a search with one trial at a time."""
        limited = ConcurrencyLimiter(self.make(CHAIN, seed=1), max_concurrent=1)
        assert Player().play(limited, 24) == Player().play(self.make(CHAIN, seed=1), 24)

    def test_ignores_late_repeated_and_unknown_reports(self) -> None:
        """Reports of unknown or ended trials, and a completion that comes twice, change no later proposal."""
        plain, disturbed = self.make(CHAIN, seed=2), self.make(CHAIN, seed=2)
        for number in range(24):
            suggestion: Any = plain.suggest(f"t{number}")
            assert disturbed.suggest(f"t{number}") == suggestion
            result = {"score": preference(suggestion["architecture"]), "training_iteration": 1}
            plain.on_trial_result(f"t{number}", result)
            plain.on_trial_complete(f"t{number}", result)
            other = {"score": 1e9, "training_iteration": 5}
            disturbed.on_trial_result("unknown", other)
            disturbed.on_trial_complete("unknown", error=True)
            for _ in range(2):
                disturbed.on_trial_result(f"t{number}", result)
            disturbed.on_trial_complete(f"t{number}", result)
            disturbed.on_trial_complete(f"t{number}", other)
            disturbed.on_trial_result(f"t{number}", other)

    def test_takes_infinite_scores_for_failures(self) -> None:
        """An infinite score is a failure like NaN: a loss that diverged is no result."""
        bad = iter([math.inf, -math.inf, math.nan] * 8)
        player = Player(score=lambda architecture: next(bad, preference(architecture)))
        self.check(CHAIN, player.play(self.make(CHAIN), 35))

    def test_takes_the_trials_of_another_search(self) -> None:
        """Tune's ``add_evaluated_trials``: what finished is known, what failed is not proposed again."""
        forms, trials = list(enumerate_all(CHAIN.decisions))[:200:10], []
        for number, form in enumerate(forms):
            trial = Trial("trainable", config={"architecture": form}, stub=True)
            trial.set_status(Trial.ERROR if number % 5 == 0 else Trial.TERMINATED)
            trial.run_metadata.last_result = {"score": preference(form), "done": number % 5 > 0}
            trials.append(trial)
        searcher = self.make(CHAIN)
        searcher.add_evaluated_trials(trials, "score")
        self.check(CHAIN, forms + Player().play(searcher, 12))


def _networks(space: SearchSpace) -> int:
    """How many different feasible networks a small space holds."""
    forms = [space.form(architecture) for architecture in enumerate_all(space.decisions)]
    return len({key(form) for form in forms if space.violation is None or space.violation(form) == 0})


def _play(contract: type[SearcherContract], count: int, seed: int) -> list[Architecture]:
    # Few different scores: ties must not be broken by the order of a set.
    return Player(lambda a: round(preference(a)), in_flight=2).play(contract().make(CHAIN, seed=seed), count)


def _run_elsewhere(contract: type[SearcherContract], play: tuple[Any, ...]) -> list[Architecture]:
    """The same in another Python process, whose strings have other hashes."""
    module = sys.modules[contract.__module__]
    cloudpickle.register_pickle_by_value(module)  # a test module need not be importable elsewhere
    try:
        task = cloudpickle.dumps((_play, play))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    architectures: list[Architecture] = json.loads(run_in_other_process(task))
    return architectures
