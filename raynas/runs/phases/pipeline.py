"""Phases and the pipeline: which phases a command needs, in which order, and which of them are done already."""

from __future__ import annotations

import abc
import graphlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from raynas.exceptions import ConfigError
from raynas.runs.context import RunContext
from raynas.storage.locks import lock_folder
from raynas.storage.removal import adopt

__all__ = ["Phase", "Pipeline"]


class Phase(abc.ABC):
    """One step of a run, such as training the supernet or searching.

    A phase continues where an earlier one of the same run stopped: it reads what it needs from the folder of the run.
    """

    name: ClassVar[str]
    """Other phases, and the traits of evaluators, require it by this name."""
    needs_network: ClassVar[bool] = True
    """Whether the space must be one of networks."""
    uses_cluster: ClassVar[bool] = False
    """Whether the run is opened, locked and joined to the cluster before the first phase."""

    def requires(self, run: RunContext) -> Iterable[str]:
        """Names of the phases that are carried out before this one, unless they are done."""
        return ()

    def done(self, run: RunContext) -> bool:
        """Whether there is nothing left to do."""
        return False

    @abc.abstractmethod
    def run(self, run: RunContext, results: Mapping[str, Any]) -> Any:
        """Carry it out.

        Args:
            run: The members of the run.
            results: What the phases before it have returned, by name.

        Returns:
            Anything that later phases use. A phase that finds architectures returns a list of them, best first, under
            the name ``search``: they come first in the leaderboard.
        """


class Pipeline:
    """Orders phases by what they require.

    Args:
        phases: All that there are; of those that do not depend on each other, the first comes first.

    Raises:
        ConfigError: Two have the same name.
    """

    def __init__(self, phases: Iterable[Phase]) -> None:
        self.phases: dict[str, Phase] = {}
        for phase in phases:
            if phase.name in self.phases:
                raise ConfigError(f"two phases have the name {phase.name!r}")
            self.phases[phase.name] = phase

    def plan(self, run: RunContext, wanted: Iterable[Phase]) -> list[Phase]:
        """The wanted phases and all that they require, in the order in which they are carried out.

        Raises:
            ConfigError: A phase is unknown, phases require each other in a circle, or one needs a network.
        """
        chosen = {phase.name: phase for phase in wanted}
        required: dict[str, tuple[str, ...]] = {}
        left = list(chosen)
        while left:
            phase = chosen[left.pop()]
            if phase.needs_network and run.networks is None:
                raise ConfigError(f"{phase.name} needs a network, but {run.config.space} is bare decisions")
            required[phase.name] = tuple(phase.requires(run))
            for name in required[phase.name]:
                if name not in self.phases and name not in chosen:
                    raise ConfigError(
                        f"phase {phase.name!r} requires {name!r}, which is no phase; known ones: "
                        f"{', '.join(self.phases)}"
                    )
                if name not in chosen:
                    chosen[name] = self.phases[name]
                    left.append(name)
        return [chosen[name] for name in self._ordered(required)]

    def _ordered(self, required: Mapping[str, Iterable[str]]) -> list[str]:
        places = {name: place for place, name in enumerate(dict.fromkeys((*self.phases, *required)))}
        sorter = graphlib.TopologicalSorter(required)
        ready: list[str] = []
        order: list[str] = []
        try:
            sorter.prepare()
        except graphlib.CycleError as error:
            raise ConfigError(f"phases require each other in a circle: {' -> '.join(error.args[1])}") from None
        while sorter.is_active():
            ready += sorter.get_ready()
            ready.sort(key=places.__getitem__)
            order.append(ready.pop(0))
            sorter.done(order[-1])
        return order

    def run(self, run: RunContext, wanted: Iterable[Phase]) -> dict[str, Any]:
        """Carry out phases and what they require; those that are done are skipped.

        Args:
            run: The members of the run.
            wanted: Phases, which may have arguments of their own.

        Returns:
            What each phase has returned, by name.

        Raises:
            ConfigError: See :meth:`plan`; or another process works on the run.
        """
        planned = self.plan(run, wanted)
        if not any(phase.uses_cluster for phase in planned):
            return self._carry_out(run, planned)
        adopt(run.folder)
        with lock_folder(run.folder):
            run.begin()
            return self._carry_out(run, planned)

    def _carry_out(self, run: RunContext, planned: Iterable[Phase]) -> dict[str, Any]:
        results: dict[str, Any] = {}
        for phase in planned:
            if not phase.done(run):
                results[phase.name] = phase.run(run, results)
        return results
