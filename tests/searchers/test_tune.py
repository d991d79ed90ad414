"""Our searchers in plain Tune programs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.search import ConcurrencyLimiter

from raynas._compat import tune_objective
from raynas.architecture import key
from raynas.searchers import TPE, Bayes, Evolution, EvolutionSettings, RandomSearch
from raynas.testing.searcher import CHAIN, preference


def loss(config: dict[str, Any]) -> dict[str, float]:
    """A function trainable with a loss that is to be minimized; some fail, some diverge."""
    value = -preference(config["architecture"])
    if int(1e6 * value) % 7 == 0:
        raise RuntimeError("this trial fails")
    return {"loss": math.inf if int(1e6 * value) % 5 == 0 else value}


def test_outside_of_tune_there_is_no_objective() -> None:
    assert tune_objective() == (None, None)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("param_space", [{}, {"batch": 3}], ids=["bare", "with_param_space"])
def test_metric_and_mode_of_tune_are_used_and_a_restored_search_continues(tmp_path: Path, param_space: dict) -> None:
    searcher = Bayes(CHAIN, seed=1)
    tuner = tune.Tuner(
        loss,
        param_space=param_space,
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", search_alg=ConcurrencyLimiter(searcher, max_concurrent=2), num_samples=8
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="search", verbose=0),
    )
    results = tuner.fit()
    assert (searcher.metric, searcher.mode) == ("loss", "min")
    forms = [result.config["architecture"] for result in results]
    assert len(set(map(key, forms))) == 8 == len(searcher.history)
    for result in results:
        entry = searcher.history[key(result.config["architecture"])]
        finite = result.error is None and math.isfinite(result.metrics["loss"])
        assert entry.status == ("done" if finite else "error")
        assert not finite or entry.score == pytest.approx(-preference(entry.architecture))
    # Its results are a start for others, and the experiment can be opened again.
    for make in (
        RandomSearch,
        TPE,
        lambda *a, **k: Evolution(*a, settings=EvolutionSettings(population=4, parents=2), **k),
    ):
        other = make(CHAIN, seed=2, mode="min")
        other.add_evaluated_trials(results._experiment_analysis, "loss")
        assert other.history.keys() >= {key(f) for f, r in zip(forms, results, strict=True) if r.error is None}
        assert key(other.suggest("t")["architecture"]) not in set(map(key, forms))
    restored = tune.Tuner.restore(str(tmp_path / "search"), trainable=loss, restart_errored=True).fit()
    assert len(restored) == 8
