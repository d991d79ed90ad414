"""The contract of an evaluator: what is misspelt is refused, and a plain trainable is wrapped."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from helpers import plain
from ray import tune
from raynas.trainables.angle import Angle
from raynas.trainables.from_scratch import FromScratch
from raynas.trainables.shared_weights import SharedWeights
from raynas.trainables.table import Table
from raynas.trainables.zero_cost import ZeroCost

from raynas import Config, prepare
from raynas.config.run import SearchConfig
from raynas.exceptions import ConfigError
from raynas.metrics import ACCURACY, PERPLEXITY
from raynas.tune.evaluator import EvaluationContext, Evaluator, EvaluatorTraits
from raynas.tune.spec import EvaluationSpec
from raynas.tune.trainable_adapter import PlainTrainable, evaluator_of
from raynas.tune.trial import BatchTrial

OURS = (Angle, FromScratch, SharedWeights, Table, ZeroCost)


def define(base: type[Any] = Evaluator, **names: Any) -> type[Any]:
    spec = classmethod(lambda cls, context: EvaluationSpec(cls))
    return type(base)("Mine", (base,), {"evaluation_spec": spec, **names})


@pytest.mark.parametrize("base", [Evaluator, BatchTrial, SharedWeights])
@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("check", r"write validate\(config\)"),
        ("check_run", r"write validate_run\(context\)"),
        ("score_mode", r"write objective\(config, metric\)"),
        ("reports", r"write combinable_metrics\(config\)"),
        ("scoring", r"write evaluation_spec\(context\)"),
        ("measured", r"write traits = EvaluatorTraits\(scored_by_task_metric=True\)"),
        ("trains_supernet", r"write traits = EvaluatorTraits\(requires="),
        ("uses_settings", r"write traits = EvaluatorTraits\(searches_hyperparameters=True\)"),
        ("best_method", r"write traits = EvaluatorTraits\(default_searcher="),
        ("default_searcher", r"is a trait: write traits = EvaluatorTraits\(default_searcher=\.\.\.\)"),
        ("trait", "did you mean traits"),
        ("validat", "did you mean validate"),
        ("valdiate_run", "did you mean validate_run"),
        ("objectives", "did you mean objective"),
        ("cost", "did you mean costs"),
        ("combineable_metrics", "did you mean combinable_metrics"),
        ("evaluation_specs", "did you mean evaluation_spec"),
        ("reset_configs", "did you mean reset_config"),
        ("score_modes", r"did you mean objective\(config, metric\)"),
    ],
)
def test_outdated_and_misspelt_names_are_refused_when_the_class_is_defined(base, name, instead):
    with pytest.raises(ConfigError, match=rf"Mine\.{name} .*{instead}"):
        define(base, **{name: True})


def test_names_of_ones_own_are_not_refused():
    mine = define(BatchTrial, worker="", table=1, helper=lambda self: 0, advance=lambda self, c, f: None, _check=1)
    assert evaluator_of(mine, Config()) is mine


def test_traits_are_checked():
    with pytest.raises(ConfigError, match=r"Mine\.traits must be an EvaluatorTraits, not dict"):
        define(traits={})
    with pytest.raises(ConfigError, match="unknown 'supernt'; legal ones: supernet, replicas"):
        EvaluatorTraits(requires=frozenset({"supernt"}))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="need_network"):
        EvaluatorTraits(need_network=False)  # type: ignore[call-arg]


def test_an_evaluator_without_its_spec_is_refused():
    unfinished = type(Evaluator)("Unfinished", (Evaluator,), {"__module__": "mine"})
    with pytest.raises(ConfigError, match="mine:Unfinished does not implement evaluation_spec"):
        evaluator_of(unfinished, Config())


def test_the_context_is_narrow_and_frozen():
    names = {field.name for field in dataclasses.fields(EvaluationContext)}
    assert names == {"config", "search_space", "costs", "say", "check_nodes", "storage", "space", "data", "search_data",
                     "task", "supernet"}  # fmt: skip
    with pytest.raises(dataclasses.FrozenInstanceError):
        EvaluationContext(*[None] * 6).config = None  # type: ignore[arg-type, misc]


def test_ours_say_what_they_require():
    assert {each.__name__: sorted(each.traits.requires) for each in OURS} == {
        "Angle": ["supernet"], "FromScratch": [], "SharedWeights": ["replicas", "supernet"], "Table": [],
        "ZeroCost": [],
    }  # fmt: skip
    assert [each.__name__ for each in OURS if not each.traits.needs_network] == ["Table"]
    assert [each.__name__ for each in OURS if each.traits.searches_hyperparameters] == ["FromScratch"]


def test_the_objective_is_that_of_the_task_where_the_score_is_its_metric():
    for evaluator in (SharedWeights, FromScratch):
        for metric in (ACCURACY, PERPLEXITY):
            found = evaluator.objective(Config(), metric)
            assert (found.name, found.mode, found.unit) == (metric.name, metric.mode, metric.unit)
    assert Angle.objective(Config(), PERPLEXITY).mode == "max"
    table = Config(search=SearchConfig(trainable_args={"file": "t.parquet", "metric": "error", "mode": "min"}))
    assert (Table.objective(table, None).name, Table.objective(table, None).mode) == ("error", "min")


def test_a_plain_trainable_is_wrapped_once():
    config = Config(search=SearchConfig(trainable="helpers.plain:Counting"))
    wrapped = evaluator_of(plain.Counting, config)
    assert issubclass(wrapped, PlainTrainable) and wrapped.wrapped is plain.Counting
    assert (wrapped.__module__, wrapped.__name__) == ("helpers.plain", "Counting")
    assert evaluator_of(wrapped, config) is wrapped
    with pytest.raises(ConfigError, match=r"is no class of ray\.tune\.Trainable"):
        evaluator_of(dict, config)


@pytest.mark.parametrize("mode", [None, "max", "min"])
def test_a_plain_trainable_scores_as_search_mode_says(mode):
    config = Config(search=SearchConfig(trainable="helpers.plain:Counting", mode=mode))
    assert evaluator_of(plain.Counting, config).objective(config, None).mode == (mode or "max")


@pytest.mark.parametrize("evaluator", OURS)
def test_search_mode_is_refused_where_the_evaluator_knows_its_objective(evaluator):
    config = Config(search=SearchConfig(trainable=f"x:{evaluator.__name__}", mode="min"))
    with pytest.raises(ConfigError, match=rf"search\.mode = min: x:{evaluator.__name__} knows itself .* leave it out"):
        evaluator_of(evaluator, config)


def test_illegal_arguments_of_a_plain_trainable_are_refused(tmp_path, no_ray):
    class Mine(tune.Trainable):
        def setup(self, config: dict[str, Any], depth: int = 1) -> None: ...

    given = SearchConfig(trainable="x:Mine", trainable_args={"dept": 3})
    with pytest.raises(ConfigError, match="x:Mine has no 'dept'; legal ones: depth"):
        evaluator_of(Mine, Config()).validate(Config(search=given))
    config = Config(space="helpers.bare:DECISIONS", search=SearchConfig(trainable="helpers.plain:Told", cohort=2))
    with pytest.raises(ConfigError, match=r"search\.cohort = 2 .*legal: 1"):
        prepare(dataclasses.replace(config, storage_path=str(tmp_path)))
