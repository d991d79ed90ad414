from __future__ import annotations

import json
import math
from random import Random
from types import SimpleNamespace

import pytest
from ray import tune
from ray.tune.schedulers import TrialScheduler

from raynas.architecture import key
from raynas.searchers import BatchSearcher, Evolution, EvolutionSettings
from raynas.testing.searcher import CHAIN, preference
from raynas.tune.resources import slots
from raynas.tune.schedulers import asha, replay, survivors

SETTINGS = EvolutionSettings(population=10, parents=3, mutations=5, crossovers=5)


def schedule(scheduler) -> dict[float, dict[str, float]]:
    return {milestone: dict(recorded) for milestone, recorded in scheduler._brackets[0]._rungs}


def live(scheduler, scores: dict[str, list[float]], seed: int = 0) -> list[tuple[str, int, float]]:
    """Run trials against a scheduler as Tune does, several at a time; return the log."""
    log, rng, waiting, running = [], Random(seed), list(scores), {}
    while waiting or running:
        if waiting and len(running) < 4:
            running[name := waiting.pop(0)] = 0
            scheduler.on_trial_add(None, SimpleNamespace(trial_id=name))
        name = rng.choice(list(running))
        running[name] += 1
        stub = SimpleNamespace(trial_id=name)
        result = {"score": scores[name][running[name] - 1], "training_iteration": running[name]}
        log.append((name, running[name], result["score"]))
        if scheduler.on_trial_result(None, stub, result) == TrialScheduler.STOP or running[name] == len(scores[name]):
            scheduler.on_trial_complete(None, stub, result)
            del running[name]
    return log


def noisy_curves(count: int, slices: int) -> dict[str, list[float]]:
    rng = Random(1)
    quality = [rng.random() for _ in range(count)]
    return {
        f"t{i}": [q + rng.gauss(0, 0.2) / math.sqrt(fidelity) for fidelity in range(1, slices + 1)]
        for i, q in enumerate(quality)
    }


def test_rungs_of_eight_slices_and_what_they_cost() -> None:
    scheduler = asha(8)
    assert sorted(schedule(scheduler)) == [1, 2, 4, 8]
    curves = noisy_curves(300, 8)
    log = live(scheduler, curves)
    assert 0.28 < len(log) / (300 * 8) < 0.42  # 2.5 slices of 8, and a little more while the rungs are empty
    finished = {trial for trial, fidelity, _ in log if fidelity == 8}
    ranked = sorted(curves, key=lambda trial: curves[trial][-1], reverse=True)
    assert ranked[0] in finished


@pytest.mark.parametrize("mode", ["max", "min"])
def test_rungs_after_a_replay_equal_those_of_the_run(mode: str) -> None:
    scheduler, again = asha(8, mode=mode), asha(8, mode=mode)
    replay(again, live(scheduler, noisy_curves(60, 8)))
    assert schedule(again) == schedule(scheduler)
    assert any(recorded for milestone, recorded in schedule(again).items() if milestone == 8)


def test_a_weak_trial_is_stopped_after_a_replay_and_not_without() -> None:
    observations = [(f"t{i}", fidelity, 0.8 + i / 1000) for i in range(20) for fidelity in (1, 2, 3)]
    weak, result = SimpleNamespace(trial_id="weak"), {"score": 0.1, "training_iteration": 1}
    for rows, decision in ((observations, TrialScheduler.STOP), ([], TrialScheduler.CONTINUE)):
        scheduler = asha(8)
        replay(scheduler, rows)
        scheduler.on_trial_add(None, weak)
        assert scheduler.on_trial_result(None, weak, result) == decision


def test_a_trial_that_goes_on_stands_in_the_lower_rungs_with_its_lower_scores() -> None:
    architecture = {"a": "1"}
    trial = SimpleNamespace(trial_id="new", config={"architecture": architecture})
    scheduler = asha(8)
    replay(scheduler, [], {key(architecture): {1: 0.3, 2: 0.4}})
    scheduler.on_trial_add(None, trial)
    scheduler.on_trial_result(None, trial, {"score": 0.5, "training_iteration": 3})
    scheduler.on_trial_result(None, trial, {"score": 0.6, "training_iteration": 4})
    assert schedule(scheduler) == {1: {"new": 0.3}, 2: {"new": 0.4}, 4: {"new": 0.6}, 8: {}}


def test_a_trial_that_was_killed_before_it_was_stopped_is_stopped() -> None:
    observations = [(f"t{i}", fidelity, 0.8 + i / 1000) for i in range(20) for fidelity in (1, 2, 3)]
    trial = SimpleNamespace(trial_id="new", config={"architecture": {"a": "1"}})
    for score, decision in ((0.1, TrialScheduler.STOP), (0.9, TrialScheduler.CONTINUE)):
        scheduler = asha(8)
        replay(scheduler, observations, {key({"a": "1"}): {1: 0.9, 2: score}})
        scheduler.on_trial_add(None, trial)
        assert scheduler.on_trial_result(None, trial, {"score": 0.9, "training_iteration": 3}) == decision


def test_survivors() -> None:
    assert survivors([0.1, 0.4, 0.2, 0.3]) == [1, 3]
    assert survivors([0.1, 0.4, 0.2, 0.3], mode="min") == [0, 2]
    assert survivors([0.1, 0.4, 0.2, 0.3, 0.0], 4.0) == [1, 3]  # 5 / 4, rounded up
    assert survivors([0.5, 0.5, 0.5], 2.0) == [0, 1]
    assert survivors([math.nan, 0.1, math.nan, math.nan]) == [1]
    assert survivors([math.nan, math.nan]) == survivors([]) == []
    assert survivors([0.7]) == [0]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="grace is 9; legal: from 1 to max_fidelity, 8"):
        asha(8, grace=9)
    with pytest.raises(ValueError, match=r"reduction_factor is 1\.0; legal: more than 1"):
        asha(8, reduction_factor=1.0)
    with pytest.raises(ValueError, match="mode is 'best'"):
        asha(8, mode="best")
    with pytest.raises(ValueError, match="reduction_factor is nan"):
        survivors([1.0], math.nan)


class Recorder(tune.Callback):
    """Keeps every report of every trial in the order of arrival."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int, float]] = []

    def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
        self.log.append((trial.trial_id, result["training_iteration"], result["score"]))


def test_evolution_and_asha_in_a_run_of_tune(ray_session, tmp_path) -> None:
    class Slices(tune.Trainable):
        """Four fidelities; the score of the first is half noise."""

        def setup(self, config) -> None:
            self.architecture = config["architecture"]

        def reset_config(self, config) -> bool:
            self.setup(config)
            return True

        def step(self):
            fidelity = self.iteration + 1
            noise = Random(key(self.architecture)).gauss(0, 1) / fidelity
            return {"score": preference(self.architecture) + noise, "done": fidelity == 4}

    searcher, scheduler, recorder = Evolution(CHAIN, settings=SETTINGS, seed=1), asha(4), Recorder()
    grid = tune.Tuner(
        tune.with_resources(Slices, slots(2)),
        tune_config=tune.TuneConfig(search_alg=searcher, scheduler=scheduler, num_samples=24, reuse_actors=True),
        run_config=tune.RunConfig(
            name="run",
            storage_path=str(tmp_path),
            callbacks=[recorder],
            # Tune's default for class trainables is to save each of them at its end.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    ).fit()

    assert not grid.errors and len(grid) == 24
    assert len({key(result.config["architecture"]) for result in grid}) == 24
    fidelities = [result.metrics["training_iteration"] for result in grid]
    assert min(fidelities) < 4 and max(fidelities) == 4
    # The searcher heard of every trial the last fidelity that it reached.
    told = {name: (entry.status, entry.fidelity, entry.score) for name, entry in searcher.history.items()}
    assert told == {
        key(result.config["architecture"]): ("done", result.metrics["training_iteration"], result.metrics["score"])
        for result in grid
    }
    # What Tune saved goes on as the searcher itself would.
    saved = Evolution(CHAIN, settings=SETTINGS, seed=1)
    saved.restore_from_dir(str(tmp_path / "run"))
    assert json.dumps(saved.get_state()) == json.dumps(searcher.get_state())
    # And a scheduler rebuilt from the log decides as the one that ran.
    rebuilt = asha(4)
    replay(rebuilt, recorder.log)
    assert schedule(rebuilt) == schedule(scheduler)


def test_a_cohort_in_a_run_of_tune(ray_session, tmp_path) -> None:
    def score(config) -> None:
        outcomes = [
            {"architecture": architecture, "score": preference(architecture), "fidelity": 1, "status": "complete"}
            for architecture in config["architectures"]
        ]
        tune.report({"score": max(outcome["score"] for outcome in outcomes), "outcomes": outcomes})

    inner = Evolution(CHAIN, settings=SETTINGS, seed=1)
    grid = tune.Tuner(
        tune.with_resources(score, slots(1)),
        tune_config=tune.TuneConfig(search_alg=BatchSearcher(inner, 16), num_samples=2),
        run_config=tune.RunConfig(name="cohorts", storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert not grid.errors
    # A generation of ten fits into a cohort of sixteen, and the next one waits for its scores.
    assert [len(result.config["architectures"]) for result in grid] == [10, 10]
    assert {entry.status for entry in inner.history.values()} == {"done"}
    assert all(entry.score == preference(entry.architecture) for entry in inner.history.values())
