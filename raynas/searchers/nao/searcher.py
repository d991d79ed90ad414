"""Neural Architecture Optimization (Luo et al., NeurIPS 2018): search by gradient in a learned continuous space.

This module imports torch; :mod:`raynas.searchers` imports it only when ``NAO`` is used.
"""

from __future__ import annotations

import copy
import json
import logging
from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch

from raynas.architecture import Architecture, key
from raynas.exceptions import ConfigError
from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.history import Entry
from raynas.searchers.nao.diagnostics import common_fidelity
from raynas.searchers.nao.latent_space import LatentSpace
from raynas.searchers.nao.settings import NAOSettings
from raynas.storage.atomic import replace_text

__all__ = ["NAO"]

log = logging.getLogger(__name__)


class NAO(ArchitectureSearcher):
    """Learns a continuous representation of scored architectures and proposes what gradient ascent in it finds.

    After ``settings.startup`` random architectures, and again after every ``settings.retrain`` scores, a
    :class:`raynas.searchers.nao.latent_space.LatentSpace` is trained from scratch on all scores so far and
    generates the candidates of the round. The candidates depend on the first scores of the history, in their order, and
    on the seed. The networks are therefore not saved: a saved state holds the candidates of its round, and a search
    rebuilt from its log trains the networks again.

    A training depends on the clock only where ``settings.seconds`` limits it. The number of steps is then read from the
    :attr:`diagnostics` in ``journal`` when the search is resumed.

    Args:
        space: The search space.
        settings: See :class:`NAOSettings`.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        journal: A JSON file to which the searcher writes its diagnostics.
        points_to_evaluate: Architectures to propose first; they count as random ones.

    Attributes:
        diagnostics: One dictionary for each training: ``scores`` (their number), ``steps`` and ``seconds`` of the
            training, ``bound`` (whether the time limit was reached), ``reconstructed`` (share of the architectures
            that were decoded exactly), ``held_out`` and ``pairwise`` (accuracy of the predictor on the pairs of so
            many held out), ``mode``, ``fidelity`` (the highest that most of those learned have reached: what is
            compared are scores of this one), ``pool`` (mean score of those learned), and ``generated``: what was
            proposed, a dictionary each of ``key``, ``predicted`` (from 0 to 1) and ``score`` (None until it is
            known). :func:`raynas.searchers.nao.diagnostics.summary` makes a table of it.
    """

    Settings = NAOSettings
    settings: NAOSettings
    _round: tuple[list[str], list[tuple[Architecture, float]]] | None = None
    """The keys that it was trained on; the candidates with their predictions, best first."""

    def __init__(self, *arguments: Any, journal: Path | None = None, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._journal = journal
        self._in_flight = 1
        try:
            torch.empty(0, device=self.settings.device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device is {self.settings.device!r}: {str(error).splitlines()[0]}") from None

    def expect_in_flight(self, trials: int) -> None:
        """Generates candidates for all of them; see :meth:`ArchitectureSearcher.expect_in_flight`."""
        self._in_flight = trials

    def propose(self) -> Architecture | str | None:
        """Proposes a random architecture at first, then the candidate of this round with the best prediction."""
        done = [entry for entry in self.history.values() if entry.status == "done"]
        random_phase = len(done) < self.settings.startup
        initial = self.opening(len(self.history) + 1 if random_phase else 0)
        if initial is not None:
            return initial
        rng = self.rng("nao", len(self.history))
        if not random_phase:
            new = (pair for pair in self._candidates(done) if key(pair[0]) not in self.history)
            best = next((pair for pair in new if self.sampler.feasible(pair[0])), None)
            if best is not None:
                self._record_proposal(*best)
                return self.record_origin(best[0], "model")
            mutant = self._mutate_best(done, rng)
            if mutant is not None:
                return self.record_origin(mutant, "mutation", self._best(done, 1)[0])
        return self.sample_new(rng)

    def _candidates(self, done: Sequence[Entry]) -> list[tuple[Architecture, float]]:
        """The candidates of this round with their predictions, best first."""
        last = len(done) - (len(done) - self.settings.startup) % self.settings.retrain
        learned = [key(entry.architecture) for entry in done[:last]]
        if self._round is None or self._round[0] != learned:
            self._round = learned, self._train(done[:last])
        return self._round[1]

    def _train(self, known: Sequence[Entry]) -> list[tuple[Architecture, float]]:
        """Trains the model on these entries and generates the candidates of a round."""
        self._read_journal()
        earlier = {row["scores"]: row for row in self.diagnostics}.get(len(known))
        ranks = sorted(map(self.rank, known))
        space = LatentSpace(self.space, self.settings, self.seed)
        goodness = [bisect_left(ranks, self.rank(entry)) for entry in known]
        steps = earlier["steps"] if earlier and earlier["bound"] else None
        fit = space.fit([entry.architecture for entry in known], goodness, steps)
        # What had ended before the last of these, so that a search rebuilt from its log does the same.
        ended = [name for name, entry in self.history.items() if entry.status != "running"]
        taken = set(ended[: ended.index(key(known[-1].architecture)) + 1])
        seeds = self._best(known, self.settings.seeds or max(len(known) // 6, 10))
        # Twice as many as a round proposes: trials may fail, and some may be pending.
        count = max(2 * self.settings.retrain, self._in_flight)
        new = space.generate(seeds, count, taken, self.sampler.feasible)
        common = common_fidelity(fidelity for entry in known for fidelity in entry.scores)
        scores = [entry.scores[common] for entry in known if common in entry.scores]
        row = {
            "scores": len(known),
            "steps": fit.steps,
            "seconds": round(fit.seconds, 3),
            "bound": fit.bound,
            "reconstructed": fit.reconstructed,
            "held_out": fit.held_out,
            "pairwise": fit.pairwise,
            "mode": self.mode,
            "fidelity": common,
            "pool": fmean(scores),
            "generated": earlier["generated"] if earlier else [],
        }
        self.diagnostics = [other for other in self.diagnostics if other["scores"] < len(known)] + [row]
        self._update_diagnostics()
        return new

    def _best(self, known: Sequence[Entry], count: int) -> list[Architecture]:
        """The best feasible architectures."""
        ordered = sorted(known, key=lambda entry: (self.rank(entry), key(entry.architecture)), reverse=True)
        usable = (entry.architecture for entry in ordered if self.sampler.feasible(entry.architecture))
        return list(islice(usable, count))

    def _mutate_best(self, done: Sequence[Entry], rng: Random) -> Architecture | None:
        """A new mutant of the best architecture; None where there is none."""
        best = self._best(done, 1)
        return self.sampler.walk(best[0], rng, self.history) if best else None

    # Diagnostics.

    def _record_proposal(self, architecture: Architecture, predicted: float) -> None:
        """Adds a proposal to the diagnostics, once."""
        generated = self.diagnostics[-1]["generated"]
        if all(each["key"] != key(architecture) for each in generated):
            generated.append({"key": key(architecture), "predicted": predicted, "score": None})
        self._update_diagnostics()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Records the last score of a trial; see :meth:`ArchitectureSearcher.on_trial_complete`."""
        super().on_trial_complete(trial_id, result, error)
        self._update_diagnostics()

    def _update_diagnostics(self) -> None:
        """Adds the scores to the diagnostics and writes the journal."""
        done = {name: entry for name, entry in self.history.items() if entry.status == "done"}
        for row in self.diagnostics:
            for each in row["generated"]:
                entry = done.get(each["key"])
                if entry is not None:
                    each["score"] = entry.scores.get(row["fidelity"])
        if self._journal is not None and self.diagnostics:
            try:
                replace_text(self._journal, json.dumps(self.diagnostics), timeout=0)
            except OSError as error:  # diagnostics must not end a search
                log.warning("cannot write %s, it is tried again after the next score: %s", self._journal, error)

    def _read_journal(self) -> None:
        """Reads the journal of an earlier process."""
        if not self.diagnostics and self._journal is not None and self._journal.exists():
            try:
                rows = json.loads(self._journal.read_text(encoding="utf-8"))
                if not isinstance(rows, list) or not rows or not all(map(_is_round, rows)):
                    raise ValueError("it holds no list of rounds")
            except (ValueError, RecursionError) as error:
                log.warning("%s is damaged: %s; diagnostics start from this round", self._journal, error)
                return
            self.diagnostics = [row for row in rows if "fidelity" in row]  # older versions did not write it

    def get_state(self) -> dict[str, Any]:
        """Includes the candidates of this round and the diagnostics; see :meth:`ArchitectureSearcher.get_state`."""
        return {**super().get_state(), "round": self._round, "diagnostics": self.diagnostics}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`get_state` returned; see :meth:`ArchitectureSearcher.set_state`."""
        super().set_state(state)
        self._round = (
            None if state["round"] is None else (list(state["round"][0]), [(f, p) for f, p in state["round"][1]])
        )
        self.diagnostics = copy.deepcopy(state["diagnostics"])


def _is_round(row: Any) -> bool:
    """Whether this is a valid round of the journal."""
    if not isinstance(row, dict):
        return False
    if "fidelity" not in row and "generated" not in row:
        return True
    kinds: dict[str, type | tuple[type, ...]] = {
        "scores": int,
        "steps": int,
        "bound": bool,
        "fidelity": int,
        "mode": str,
        "pool": (int, float),
        "seconds": (int, float),
    }
    shares = (row.get(name, "") for name in ("reconstructed", "pairwise", "held_out"))
    return (
        all(isinstance(row.get(name), kind) for name, kind in kinds.items())
        and all(share is None or isinstance(share, (int, float)) for share in shares)
        and isinstance(row.get("generated"), list)
        and all(isinstance(each, dict) and _is_generated(each) for each in row["generated"])
    )


def _is_generated(each: dict[str, Any]) -> bool:
    score = each.get("score", "")
    right = score is None or isinstance(score, (int, float))
    return right and isinstance(each.get("key"), str) and isinstance(each.get("predicted"), (int, float))
