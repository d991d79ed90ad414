"""The search of a run: architectures in, a log and a leaderboard out.

What is searched may be data alone: decisions by name, without a network. The trainable then says what an architecture
scores and costs, from a table for example. :class:`raynas.runs.network.Run` adds what a network makes possible.

Everything is kept in one folder, from which a run that was interrupted goes on:

    config.yaml          all settings
    scored.parquet/      the log: everything that was scored
    leaderboard.json     the best ones; pareto.json, with search.objectives: the front; graphs.json: how they are wired
    report.html
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import ray
from typing_extensions import Self

from raynas import results
from raynas.architecture import Architecture
from raynas.config.fingerprint import Fingerprint, scoring_settings
from raynas.config.loading import dump, load_kept
from raynas.config.run import Config
from raynas.config.types import check_name
from raynas.distributed.connection import check_address, connect
from raynas.distributed.monitoring import RunMetrics
from raynas.distributed.nodes import check_nodes
from raynas.exceptions import ConfigError
from raynas.report.page import write_report
from raynas.results.log import Log
from raynas.results.pareto_front import Hypervolume
from raynas.runs.bad_input import validating
from raynas.runs.budget import Budget
from raynas.runs.compatibility import begun, refuse_changes, warn_if_unknown
from raynas.runs.display import View
from raynas.runs.leaderboard import Leaderboard, read_front, read_winner
from raynas.runs.sample import check_combination, combined
from raynas.runs.warm_start import Source
from raynas.search_space.constraints import Limits, Profile
from raynas.search_space.joint import joined
from raynas.search_space.space import SearchSpace
from raynas.searchers import ArchitectureSearcher
from raynas.storage.atomic import remove_abandoned, replace_text, write_with_retry
from raynas.storage.locks import exclusive
from raynas.storage.object_store import check_folder, check_storage, remote
from raynas.storage.recovery import recover
from raynas.storage.removal import adopt, free_name, remove_tree
from raynas.storage.sync import StoreSync
from raynas.tune.callback import Recorder
from raynas.tune.evaluator import CostModel, EvaluationContext
from raynas.tune.experiment import run_search
from raynas.tune.loggers import check_loggers, listening
from raynas.tune.plain import evaluator_of
from raynas.tune.resources import check_processes, memory_here, memory_of_head
from raynas.tune.spec import EvaluationSpec, Objective

__all__ = ["NoCosts", "SearchRun"]


_Status = TypeVar("_Status")


class NoCosts:
    """Where nothing is known of them."""

    def __call__(self, architecture: Mapping[str, str], /) -> dict[str, float]:
        """None."""
        return {}

    def profile(self) -> dict[str, Profile]:
        """None."""
        return {}

    def __str__(self) -> str:
        return "no costs are known"


class SearchRun:
    """A search of a space, which goes on from where an earlier one of the same name stopped.

    Args:
        config: All settings. ``config.name`` must be set.
        space: What may be proposed.
        costs: What architectures cost: all that is limited.
        searcher: Makes the searcher of a SearchSpace, ``seed``, ``metric`` and ``mode``; its class will do.
        trainable: An :class:`raynas.tune.evaluator.Evaluator`, or a plain ``tune.Trainable``.
        view: Where progress is shown.

    Raises:
        ValueError: A setting is illegal.
    """

    def __init__(
        self,
        config: Config,
        space: SearchSpace,
        costs: CostModel,
        searcher: Callable[..., ArchitectureSearcher],
        trainable: type[Any],
        view: View | None = None,
    ) -> None:
        assert config.name is not None
        self.config, self.costs = config, costs
        with validating():
            self.limits = Limits.parse(config.limits, config.limits)
        self.trainable, self.view = evaluator_of(trainable, config), view or View()
        self.mirror = self._new_mirror()
        """What keeps its files in an object store, where that is the storage; it is started by :meth:`open`."""
        local = Path(config.storage_path).expanduser() / config.name
        self.folder = local if self.mirror is None else self.mirror.folder
        """Where its files are on this machine."""
        self._attached = False
        self.metrics = RunMetrics(config.name)
        self.budget = Budget(config, self.folder)
        """What the command that runs may still spend."""
        self.source: Source | None = None
        """What a warm start begins with."""
        self._any_searcher = searcher
        self.use(self.joined(space))
        self.decisions = self.search_space.decisions
        """All that was open at first; a supernet may leave less of it in ``search_space``: see ``train.shrink``."""
        with validating():
            self.searcher()
        check_combination(self.trainable, config)
        if check_address(config) is None:
            check_processes(self.trainable, config.search, memory_here(), "this machine")
        check_loggers(config.search.loggers)
        self.trainable.validate(config)

    def joined(self, space: SearchSpace) -> SearchSpace:
        """The space with the training settings that are searched, too: see ``search.joint``."""
        return joined(space, self.config.search, self.trainable.traits.searches_hyperparameters)

    def costs_of(self, architecture: Architecture) -> Mapping[str, float]:
        """What an architecture costs, by name."""
        return (self.search_space.costs or self.costs)(architecture)

    def profile(self) -> Mapping[str, Profile]:
        """The range of each cost over the space."""
        return self.costs.profile()

    def price(self) -> None:
        """Find out what architectures cost where that takes a measurement; called before anything is computed."""

    def objective(self) -> Objective:
        """What a score of this run is, and whether it is to be high (max) or low (min)."""
        if self.config.search.combine:
            return Objective("combined rank")
        return self.trainable.objective(self.config, None)

    def use(self, space: SearchSpace) -> None:
        """Search in this space."""
        self.search_space = space
        self.searcher: Callable[..., ArchitectureSearcher] = functools.partial(
            self._any_searcher, space, seed=self.config.seed
        )
        """Makes a fresh searcher."""
        if self.config.search.warm_start is not None:
            self.source = Source.of(self.config, self.folder, space, self.objective().mode)
            self.searcher = self.source.warm(self.searcher)

    def __repr__(self) -> str:
        """Name, folder and state."""
        found = (self.folder / "leaderboard.json").exists()
        state = "searched" if found else "begun" if self.begun else "new"
        return f"<{type(self).__name__} {self.config.name!r} in {self.place}: {state}>"

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _new_mirror(self) -> StoreSync | None:
        assert self.config.name is not None
        check_name(self.config.name)
        return StoreSync(self.config.storage_path, self.config.name) if remote(self.config.storage_path) else None

    def attach(self) -> None:
        """Bring the files of the run here from an object store, and send what changes from then on.

        On a storage that is a folder there is nothing to do.

        Raises:
            ConfigError: The store cannot be used.
            OSError: The store refused.
        """
        if self.mirror is None or self._attached:
            return
        check_storage(self.config.storage_path)
        self.mirror = self._new_mirror()
        assert self.mirror is not None
        recover(self.mirror)
        self.mirror.pull()
        self.mirror.start()
        self._attached = True
        self.load()

    def load(self) -> None:
        """Take up what the folder of the run holds: how much was spent, and what a warm start begins with."""
        self.budget = Budget(self.config, self.folder)
        self.use(self.search_space)

    def open(self) -> None:
        """Make the folder and keep the settings in it, in an object store, too: ``--resume`` finds the run.

        Earlier settings stay beside them, numbered. May be called again.

        Raises:
            ConfigError: The folder holds weights or scores that do not belong to these settings, or the storage
                cannot be used.
        """
        self.attach()
        if self.mirror is not None:
            write_with_retry(self.mirror.claim, self.mirror.uri)
        self._write_settings()
        if self.mirror is not None:
            write_with_retry(self.mirror.push, self.mirror.uri)

    def _write_settings(self) -> None:
        adopt(self.folder)
        remove_abandoned(self.folder)
        path, text = self.folder / "config.yaml", dump(self.config)
        before = load_kept(path) if path.exists() else self.config
        refuse_changes(self.folder, before, self.config, self.settings().get("data.contents"))
        warn_if_unknown(self.folder)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            replace_text(free_name(path), path.read_text(encoding="utf-8"), timeout=0)
        replace_text(path, text, timeout=0)
        if self.source is not None:
            self.source.keep(self.folder)

    def begin(self) -> None:
        """Keep the settings and join the cluster; see that all nodes have both the folder and the code.

        Raises:
            ConfigError: There is no such cluster, or some of its nodes lack something.
        """
        self.open()
        connect(self.config)
        if check_address(self.config) is not None:
            check_processes(self.trainable, self.config.search, memory_of_head(ray.nodes()), "the head node")
        self.check_nodes()

    def check_nodes(self) -> None:
        """See that all nodes have both the folder and the code.

        Raises:
            ConfigError: Some of them lack something.
        """
        if check_address(self.config) is not None or len(ray.nodes()) > 1:
            check_nodes(self.folder if self.mirror is None else self.config.storage_path, self.modules())

    def modules(self) -> list[str]:
        """What the nodes of the cluster must be able to import."""
        return ["raynas", self.trainable.__module__]

    @exclusive
    def search(self) -> list[dict[str, Any]]:
        """Score ``search.num_samples`` architectures and return the best of them, best first.

        What the log already holds is not scored again, whatever searcher or limit it came from.

        Returns:
            Up to ``search.top`` rows with ``architecture``, ``key``, ``score``, ``final_score`` and the costs; also
            written to leaderboard.json. With ``search.objectives`` see :meth:`front`, too.
        """
        self.begin()
        self.budget = Budget(self.config, self.folder)
        self.price()
        spec = combined(self, self.evaluation_spec())
        folder = self.folder / "scored.parquet"
        if folder.exists():
            results.compact(folder)
        stamp = {"run": self.config.name, "searcher": self.config.search.method}
        settings, objectives, hypervolume = self.config.search, self.search_space.objectives, None
        if objectives:
            hypervolume = Hypervolume(objectives, self.profile(), self.limits, spec.mode)
            early = "; nobody is stopped early, or the cheap would be" if settings.scheduler == "asha" else ""
            self.view.say(f"looking for the front of score against {' and '.join(objectives)}{early}")
        with (
            Log(folder, settings=self.settings()) as log,
            self.view.search() as show,
            self.metrics.search(self.seen_by(show)) as told,
            listening(self.config, self.folder) as heard,
        ):
            recorder = Recorder(log, spec, stamp, self.costs_of, told, hypervolume)
            recorder.hear = heard
            searcher = self.searcher(metric="score", mode=spec.mode)
            searcher.journal = self.folder / "searcher.json"
            if not spec.simulated:
                self.budget.hold(spec.workers * spec.gpus)
            left = self.budget.told if spec.simulated else self.budget.left
            with self.sole():
                status = run_search(searcher, spec, settings, log, recorder, left)
        self.forget_ended()
        self.view.summary(status)
        rescored = spec.rescore is not None
        best = self.leaderboard(spec, searcher.recommend(settings.top) if rescored else [])
        front = self.front() if objectives else []  # empty, where time was short of a full score
        self.view.leaderboard(front or best, rescored, "the front" if front else None)
        if self.mirror is not None:
            self.mirror.try_push()
        return best

    @contextmanager
    def sole(self) -> Iterator[None]:
        """Tune and Ray Train tell in words of their own that another has gone on with the run: here it is said again.

        Raises:
            LeaseLostError: Something in here failed, and another has gone on.
        """
        try:
            yield
        except RuntimeError:
            if self.mirror is not None:
                with suppress(OSError):
                    self.mirror.claim()
            raise

    def seen_by(self, show: Callable[[_Status], None]) -> Callable[[_Status], None]:
        """The same, and nothing more is computed once another has gone on with the run."""

        def told(status: _Status) -> None:
            if self.mirror is not None:
                self.mirror.check()
            show(status)

        return told

    def forget_ended(self) -> None:
        """Remove the weights that trials which ended have left: by the log, and by that of a random sample."""
        running = set[str]()
        for log in filter(Path.exists, (self.folder / name for name in ("scored.parquet", "sample"))):
            rows = results.read(log).to_pylist()
            running |= {row["key"] for row in rows} - {row["key"] for row in rows if row["status"] != "running"}
        kept = self.folder / "in-flight"
        mirror = None if self.mirror is None else self.mirror.below("in-flight")
        if mirror is not None:
            write_with_retry(mirror.pull, f"the copy of {mirror.uri}")  # nodes that were lost have left theirs there
        for folder in kept.glob("*"):
            if folder.name not in running:
                remove_tree(folder)
        if mirror is not None:
            mirror.try_push()
        if kept.exists() and not any(kept.iterdir()):
            remove_tree(kept)

    def evaluation_spec(self) -> EvaluationSpec:
        """How the evaluator scores; what it requires is trained first."""
        self.provide(self.trainable.traits.requires)
        spec = self.trainable.evaluation_spec(self.context())
        return dataclasses.replace(spec, mode=self.objective().mode)

    def provide(self, requirements: Set[str]) -> None:
        """Carry out the phases that an evaluator requires; see :class:`raynas.tune.evaluator.EvaluatorTraits`.

        Raises:
            ConfigError: It requires a network, and there is none.
        """
        if requirements:
            raise ConfigError(f"{self.config.search.trainable} needs a network, but {self.config.space} has none")

    def context(self) -> EvaluationContext:
        """What an evaluator is given of this run."""
        name = "in-flight"
        return EvaluationContext(
            config=self.config,
            search_space=self.search_space,
            costs=self.costs,
            say=self.view.say,
            check_nodes=self.check_nodes,
            storage=self.folder.absolute() / name if self.mirror is None else self.mirror.below(name),
        )

    def leaderboard(self, spec: EvaluationSpec, recommended: Sequence[Architecture] = ()) -> list[dict[str, Any]]:
        """See :meth:`raynas.runs.leaderboard.Leaderboard.write`."""
        if not (self.folder / "config.yaml").exists():
            self._write_settings()  # somebody has deleted the folder meanwhile
        board = Leaderboard(self.folder, self.search_space, self.costs_of, self.config.search.top)
        return board.write(spec, recommended)

    def front(self) -> list[dict[str, Any]]:
        """The front of the last search, best score first: rows as :meth:`search` returns them.

        Raises:
            ConfigError: Nothing was searched yet with ``search.objectives``.
        """
        return read_front(self.folder)

    def best(self) -> Architecture:
        """The winner of the last search.

        Raises:
            ConfigError: Nothing was searched yet.
        """
        return read_winner(self.folder)

    def check(self, architecture: Mapping[str, str]) -> Architecture:
        """The canonical form of an architecture that a person gave.

        Raises:
            ArchitectureError: The space does not contain it.
        """
        return self.search_space.form(architecture)

    def settings(self) -> Fingerprint:
        """What its scores depend on."""
        return scoring_settings(self.config)

    def check_folder(self) -> None:
        """See that its folder can be written, before anything is started.

        Raises:
            ConfigError: It cannot.
        """
        if self.mirror is None:
            check_folder(self.folder)

    @property
    def begun(self) -> bool:
        """Whether its folder holds weights or scores."""
        return begun(self.folder)

    @property
    def place(self) -> str:
        """Where everything is kept."""
        return str(self.folder) if self.mirror is None else self.mirror.uri

    def shown(self, path: Path) -> str:
        """Where a file of the run is kept."""
        return f"{self.place}/{path.relative_to(self.folder)}"

    def report(self) -> Path:
        """Write a page about the run; returns its path."""
        return write_report(self.folder)

    def affordable(self, steps: Sequence[str]) -> list[str]:
        """Those of the steps after a search for which there is time."""
        return list(steps)

    def send(self) -> None:
        """Make sure that its files are in its storage.

        Raises:
            OSError: The storage refused for ten minutes.
        """
        if self.mirror is not None:
            write_with_retry(self.mirror.push, self.mirror.uri)

    def close(self) -> None:
        """End what the run has started, and send its files where the storage takes them. It may be opened again."""
        self.release()
        if self.mirror is not None and self._attached:
            self.mirror.close()
            self._attached = self.mirror.lease_lost  # a run that another process goes on with is not taken back

    def release(self) -> None:
        """End the actors that the run has started."""
