"""Conformance tests to inherit: what an evaluator must do to be usable with RayNAS, in anyone's test suite.

An evaluator of your own, or a plain ``tune.Trainable``, is checked by one class with one method::

    from raynas import Config, prepare
    from raynas.config.run import SearchConfig
    from raynas.testing.evaluator import EvaluatorContract

    class TestMine(EvaluatorContract):
        def make_run(self, folder):
            search = SearchConfig(trainable="my_pkg.scores:Mine")
            config = Config(search=search, storage_path=str(folder), name="run")
            return prepare(config, space=my_space(), data=my_data())

pytest collects it. A local Ray is started unless there is one, and what the evaluator requires is trained once for all
tests of the class: make the space and the data small. Trials run in the process of the tests.
"""

from __future__ import annotations

import abc
import dataclasses
import inspect
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import ray
from ray import tune

from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.exceptions import ConfigError
from raynas.runs.run import Run
from raynas.search_space.sampler import ArchitectureSampler
from raynas.testing.trials import Outcome, Prepared, Trials
from raynas.tune.evaluator import Evaluator, EvaluatorTraits
from raynas.tune.spec import EvaluationSpec, Objective
from raynas.tune.trainable_adapter import PlainTrainable
from raynas.tune.trial import BatchTrial

__all__ = ["EvaluatorContract"]

_MISSPELT = {
    "validate": "valdiate",
    "validate_run": "validate_runs",
    "objective": "objectives",
    "costs": "cost",
    "combinable_metrics": "combineable_metrics",
    "evaluation_spec": "evaluation_specs",
    "traits": "trait",
}
"""The names of the contract, and a misspelling of each."""
_TIMES = ("seconds", "worker")
"""What two evaluations of the same architecture need not have in common."""


_KNOWN = ("fidelity", "score", "seconds", "metrics")
"""What a resumed run tells its trials of an outcome in the log."""


class EvaluatorContract(abc.ABC):
    """Inherit it under a name that begins with ``Test``."""

    samples: ClassVar[int] = 3
    """Random architectures that are evaluated."""
    tolerance: ClassVar[float] = 0.0
    """Relative difference that two scores of the same architecture may have. Infinity: scores are random."""
    bad_settings: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"trainable_args": {"no_such_argument": 1}},
        {"grace": 10**6},
    )
    """Changes to the ``search`` settings that the evaluator must refuse: by default an unknown argument, and a grace
    beyond its last fidelity."""

    @abc.abstractmethod
    def make_run(self, folder: Path) -> Run:
        """A small run that uses the evaluator.

        Args:
            folder: The ``storage_path`` of the run.
        """

    def start_ray(self) -> None:
        """Start Ray; called where it is not running."""
        ray.init(
            address="local", num_cpus=4, num_gpus=0, include_dashboard=False, logging_level=logging.ERROR,
            log_to_driver=False, object_store_memory=256 * 2**20,
        )  # fmt: skip

    @contextmanager
    def opened(self, folder: Path) -> Iterator[Prepared]:
        """The run in a folder, after what its evaluator requires was trained."""
        if not ray.is_initialized():
            self.start_ray()
        run = self.make_run(folder)
        try:
            run.context.begin()
            evaluator = run.context.evaluator
            spec = run.evaluation_spec()
            yield Prepared(run, evaluator, run.context.evaluation_context(), spec, _sample(run, self.samples))
        finally:
            run.close()

    @contextmanager
    def isolated(self, prepared: Prepared, folder: Path) -> Iterator[Trials]:
        """Trials in a working folder, a home folder and a temporary folder of their own, all below one folder."""
        for name in ("work", "home", "temporary", "trial"):
            (folder / name).mkdir()
        # What Tune gives to a trial; this must do without Tune.
        storage = SimpleNamespace(
            trial_fs_path=str(folder / "trial"),
            trial_working_directory=str(folder / "trial"),
            persist_artifacts=lambda: None,
        )
        made = Trials(prepared, storage)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder / "work")
            patch.setenv("HOME", str(folder / "home"))
            patch.setattr(tempfile, "tempdir", str(folder / "temporary"))
            patch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")
            patch.setenv("TUNE_ORIG_WORKING_DIR", str(folder / "work"))
            try:
                yield made
            finally:
                made.close()
                made.forget()

    @pytest.fixture(scope="class")
    @classmethod
    def prepared(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
        """See :meth:`opened`."""
        with cls().opened(tmp_path_factory.mktemp("run")) as prepared:
            yield prepared

    @pytest.fixture
    def trials(self, prepared: Prepared, tmp_path: Path) -> Iterator[Trials]:
        """See :meth:`isolated`."""
        with self.isolated(prepared, tmp_path) as trials:
            yield trials

    def same(self, one: Sequence[Outcome], other: Sequence[Outcome]) -> bool:
        """Whether two lists of outcomes are equal, but for the times and the processes they took."""
        return len(one) == len(other) and all(map(self._same, one, other))

    def _same(self, one: Outcome, other: Outcome) -> bool:
        names = [name for name in one if name not in (*_TIMES, "score", "metrics")]
        return (
            all(one[name] == other.get(name) for name in names)
            and self._near(one["score"], other["score"])
            and one["metrics"].keys() == other["metrics"].keys()
            and all(self._near(one["metrics"][name], other["metrics"][name]) for name in one["metrics"].keys() - _TIMES)
        )

    def _near(self, one: Any, other: Any) -> bool:
        if not isinstance(one, (int, float)) or math.isinf(self.tolerance):
            return bool(one == other) or math.isinf(self.tolerance)
        return math.isclose(one, other, rel_tol=self.tolerance) or (math.isnan(one) and math.isnan(other))

    def test_its_class_is_complete_and_its_traits_fit_together(self, prepared: Prepared) -> None:
        evaluator = prepared.evaluator
        assert issubclass(evaluator, Evaluator) and not inspect.isabstract(evaluator)
        traits = evaluator.traits
        assert isinstance(traits, EvaluatorTraits)
        assert traits.needs_network or not traits.requires, "only a network can be trained"
        assert traits.needs_network or not traits.scored_by_task_metric, "only a network has a task"
        if traits.needs_network:
            assert prepared.run.has_network and prepared.context.space is not None

    @pytest.mark.parametrize("name", sorted(_MISSPELT))
    def test_a_misspelt_name_is_refused(self, prepared: Prepared, name: str) -> None:
        evaluator: Any = prepared.evaluator
        with pytest.raises(ConfigError, match=f"did you mean {name}"):
            type(evaluator)("Misspelt", (evaluator,), {_MISSPELT[name]: None, "__module__": __name__})

    def test_its_objective_has_a_direction(self, prepared: Prepared) -> None:
        run, evaluator = prepared.run, prepared.evaluator
        metric = None if prepared.context.task is None else prepared.context.task.metric
        objective = evaluator.objective(run.config, metric)
        assert isinstance(objective, Objective) and objective.name and objective.mode in ("max", "min")
        assert objective == evaluator.objective(run.config, metric)
        if not run.config.search.combine:
            assert run.context.problem.objective == objective and prepared.spec.mode == objective.mode
        if evaluator.traits.scored_by_task_metric:
            assert metric is not None and (objective.name, objective.mode) == (metric.name, metric.mode)

    def test_bad_settings_are_refused_in_one_line(self, prepared: Prepared, trials: Trials) -> None:
        run, evaluator = prepared.run, prepared.evaluator
        evaluator.validate(run.config)
        before = _files(run.folder)
        for bad in self.bad_settings:
            config = dataclasses.replace(run.config, search=dataclasses.replace(run.config.search, **bad))
            with pytest.raises(ConfigError) as refused:
                evaluator.validate(config)
            assert "\n" not in str(refused.value) and any(name in str(refused.value) for name in bad), refused.value
        assert _files(run.folder) == before, "validate writes nothing"

    def test_its_spec_fits_together(self, prepared: Prepared) -> None:
        spec, evaluator = prepared.spec, prepared.evaluator
        assert isinstance(spec, EvaluationSpec) and issubclass(spec.trainable, tune.Trainable)
        assert min(spec.max_fidelity, spec.workers, spec.concurrent) >= 1 and spec.gpus >= 0
        assert all(amount >= 0 for amount in spec.resources.values())
        accepted = inspect.signature(spec.trainable.setup).parameters
        if not any(each.kind is each.VAR_KEYWORD for each in accepted.values()):
            assert spec.parameters.keys() <= accepted.keys(), "setup takes the parameters of the spec"
        names = evaluator.combinable_metrics(prepared.run.config)
        assert names is None or set(spec.combine) <= set(names)
        assert not spec.combine or issubclass(spec.trainable, BatchTrial)

    def test_its_costs_have_a_profile(self, prepared: Prepared) -> None:
        context = prepared.context
        costs = prepared.evaluator.costs(context.search_space.decisions, context.config)
        if costs is not None:
            for architecture in prepared.architectures:
                assert costs(architecture).keys() == costs.profile().keys()

    def test_a_trial_reports_one_fidelity_a_step(self, prepared: Prepared, trials: Trials) -> None:
        spec = prepared.spec
        names = prepared.evaluator.combinable_metrics(prepared.run.config)
        for architecture in prepared.architectures:
            reports = trials.scores(architecture)
            assert reports, "a trial reports at least once"
            for fidelity, outcomes in enumerate(reports, 1):
                assert [each["architecture"] for each in outcomes] == [architecture]
                outcome = outcomes[0]
                assert outcome["status"] in ("running", "complete", "stopped", "error")
                assert outcome["fidelity"] == fidelity or outcome["status"] == "error"
                assert isinstance(outcome["score"], (int, float))
                assert outcome.get("seconds", 0.0) >= 0
            last = reports[-1][0]
            assert len(reports) <= spec.max_fidelity
            assert last["status"] in ("complete", "stopped", "error") or not spec.ends_itself
            if names and last["status"] == "complete":
                assert {*names} & last["metrics"].keys(), "some of the metrics that can be combined are reported"

    def test_an_architecture_has_one_score(self, prepared: Prepared, trials: Trials) -> None:
        for architecture in prepared.architectures:
            for one, other in zip(trials.scores(architecture), trials.scores(architecture), strict=True):
                assert self.same(one, other), (one, other)

    def test_a_trial_can_be_used_again(self, prepared: Prepared, trials: Trials) -> None:
        first, second = prepared.architectures[:2]
        expected = trials.scores(first)
        trial = trials.new({"architecture": second})
        trials.outcomes(trial)
        trials.forget()
        if not trial.reset({"architecture": first}, storage=trials.storage):
            return  # Tune starts another process
        for one, other in zip(expected, trials.outcomes(trial), strict=True):
            assert self.same(one, other), (one, other)

    def test_a_batch_scores_as_single_trials_do(self, prepared: Prepared, trials: Trials) -> None:
        if not issubclass(prepared.spec.trainable, BatchTrial):
            return
        batch = trials.outcomes(trials.new({"architectures": list(prepared.architectures)}))
        for architecture in prepared.architectures:
            alone = trials.scores(architecture)
            own = [each for outcomes in batch for each in outcomes if each["architecture"] == architecture]
            reached = {each["fidelity"]: each for each in own}
            for fidelity, outcome in reached.items():
                expected = alone[fidelity - 1][0]
                # A batch drops its weak candidates by itself, and reports all again at its end.
                assert self.same([{**outcome, "status": expected["status"]}], [expected]), (outcome, expected)
            assert reached, "each architecture of a batch is reported"

    def test_an_interrupted_trial_continues(self, prepared: Prepared, trials: Trials, tmp_path: Path) -> None:
        architecture, spec = prepared.architectures[0], prepared.spec
        whole = trials.scores(architecture)
        if len(whole) < 2:
            return
        first = trials.new({"architecture": architecture})
        last = trials.outcomes(first, steps=1)[-1][0]
        keeps = not issubclass(prepared.evaluator, PlainTrainable) or (
            prepared.evaluator.wrapped.save_checkpoint is not tune.Trainable.save_checkpoint
        )
        saved = first.save_checkpoint(str(tmp_path)) if keeps else None
        further: dict[str, Any] = {}
        if "known" in inspect.signature(spec.trainable.setup).parameters:
            further["known"] = {
                arch.key(architecture): {n: last[n] for n in ("fidelity", "score", "seconds", "metrics")}
            }
        again: Any = trials.resumed({"architecture": architecture}, **further)
        if keeps:
            again.load_checkpoint(str(tmp_path) if saved is None else saved)
        rest = trials.outcomes(again, steps=len(whole) - (1 if keeps else 0))
        if prepared.evaluator.traits.repeats_reports:
            assert rest[0] == [last], "the report is the same, also its seconds: nothing is computed for it"
            rest = [*rest[1:], *trials.outcomes(again, steps=1)]
        assert len(rest) == len(whole) - (1 if keeps else 0)
        for one, other in zip(whole[-len(rest) :], rest, strict=True):
            # Trainables that know nothing of RayNAS have their fidelities counted by Tune, from the restored one on.
            assert self.same(one, [{**each, "fidelity": a["fidelity"]} for a, each in zip(one, other, strict=True)])

    def test_nothing_is_written_outside_the_storage(self, prepared: Prepared, trials: Trials, tmp_path: Path) -> None:
        trials.scores(prepared.architectures[0])
        trials.close()
        for name in ("work", "home", "temporary"):
            assert not _files(tmp_path / name), f"a trial leaves files in the {name} folder"


def _sample(run: Run, count: int) -> tuple[Architecture, ...]:
    """Different feasible architectures."""
    sampler, rng, found = ArchitectureSampler(run.search_space), Random(0), dict[str, Architecture]()
    for _ in range(count):
        architecture = sampler.sample_new(rng, found)
        assert architecture is not None, "the space is too small"
        found[arch.key(architecture)] = architecture
    return tuple(found.values())


def _files(folder: Path) -> dict[str, int]:
    """The sizes of the files below a folder, by path."""
    return {str(path): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
