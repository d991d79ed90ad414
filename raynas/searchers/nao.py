"""Neural Architecture Optimization (Luo et al., NeurIPS 2018): search by gradient in a learned continuous space.

PyTorch comes with this module, so :mod:`raynas.searchers` does not import it: ``from raynas.searchers.nao import NAO``.
"""

from __future__ import annotations

import copy
import json
import logging
from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice
from random import Random
from statistics import fmean
from typing import Any

import torch

from raynas.architecture import Architecture, key
from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.diagnostics import common_fidelity
from raynas.searchers.history import Entry
from raynas.searchers.models.nao_latent import LearnedSpace
from raynas.searchers.nao_settings import NAOSettings
from raynas.storage.atomic import replace_text

__all__ = ["NAO", "NAOSettings"]

log = logging.getLogger(__name__)


class NAO(ArchitectureSearcher):
    """Learns a continuous space of all that was scored, round after round, and proposes what lies uphill of the best.

    After ``settings.startup`` random architectures, and again after every ``settings.retrain`` scores, a
    :class:`raynas.searchers.models.nao_latent.LearnedSpace` is fitted from the beginning to all scores so far and
    generates the candidates of the round. What a round proposes follows from the first scores of the history, in its
    order, and from the seed. So nothing of the networks has to be saved: a saved state holds the candidates of its
    round, and a search that was rebuilt from its log trains them again.

    Only a bound in seconds that bites makes a training depend on the clock. How many steps were made stands in the
    :attr:`diagnostics`; a search that finds its own in ``journal`` trains as many.

    Args:
        space: What may be proposed.
        settings: Sizes and schedule.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: Architectures to propose first; they count as random ones.

    Attributes:
        diagnostics: What speaks for and against the learned space, a dictionary a round: ``scores`` (so many were
            learned), ``steps`` and ``seconds`` of the training, ``bound`` (whether its seconds did not suffice),
            ``reconstructed`` (share of the architectures that were decoded exactly), ``held_out`` and ``pairwise``
            (accuracy of the predictor on the pairs of so many held out), ``mode``, ``fidelity`` (the highest that most
            of those learned have reached: what is compared are scores of this one), ``pool`` (mean score of those
            learned), and ``generated``: what this round proposed, a dictionary each of ``key``, ``predicted`` (standing
            from 0 to 1) and ``score`` (None until it is known). :func:`raynas.searchers.diagnostics.summary` makes a
            table of it.
    """

    Settings = NAOSettings
    settings: NAOSettings
    _round: tuple[list[str], list[tuple[Architecture, float]]] | None = None
    """The keys that were learned; the candidates with their predictions, best first."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._in_flight = 1
        try:
            torch.empty(0, device=self.settings.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device is {self.settings.device!r}: {str(error).splitlines()[0]}") from None

    def expect_in_flight(self, trials: int) -> None:
        """A round must have candidates for all of them; see :meth:`ArchitectureSearcher.expect_in_flight`."""
        self._in_flight = trials

    def propose(self) -> Architecture | str | None:
        """A random architecture at first, then the candidate of this round with the best prediction."""
        done = [entry for entry in self.history.values() if entry.status == "done"]
        beginning = len(done) < self.settings.startup
        waiting = self.opening(len(self.history) + 1 if beginning else 0)
        if waiting is not None:
            return waiting
        rng = self.rng("nao", len(self.history))
        if not beginning:
            new = (pair for pair in self._candidates(done) if key(pair[0]) not in self.history)
            promising = next((pair for pair in new if self.sampler.feasible(pair[0])), None)
            if promising is not None:
                self._tell(*promising)
                return self.record_origin(promising[0], "model")
            found = self._near_best(done, rng)
            if found is not None:
                return self.record_origin(found, "mutation", self._best(done, 1)[0])
        return self.drawn(rng)

    def _candidates(self, done: Sequence[Entry]) -> list[tuple[Architecture, float]]:
        """Those of this round with their predictions, the best first."""
        last = len(done) - (len(done) - self.settings.startup) % self.settings.retrain
        learned = [key(entry.architecture) for entry in done[:last]]
        if self._round is None or self._round[0] != learned:
            self._round = learned, self._learn(done[:last])
        return self._round[1]

    def _learn(self, known: Sequence[Entry]) -> list[tuple[Architecture, float]]:
        """Fit a space to these and generate the candidates of a round."""
        self._recall()
        earlier = {row["scores"]: row for row in self.diagnostics}.get(len(known))
        ranks = sorted(map(self.rank, known))
        space = LearnedSpace(self.space, self.settings, self.seed)
        goodness = [bisect_left(ranks, self.rank(entry)) for entry in known]
        steps = earlier["steps"] if earlier and earlier["bound"] else None
        fit = space.fit([entry.architecture for entry in known], goodness, steps)
        # What had ended before the last of these: a search rebuilt from its log knows as much.
        ended = [name for name, entry in self.history.items() if entry.status != "running"]
        taken = set(ended[: ended.index(key(known[-1].architecture)) + 1])
        seeds = self._best(known, self.settings.seeds or max(len(known) // 6, 10))
        # Twice as many as a round proposes: trials may fail, and some may be in flight already.
        count = max(2 * self.settings.retrain, self._in_flight)
        found = space.generate(seeds, count, taken, self.sampler.feasible)
        common = common_fidelity(fidelity for entry in known for fidelity in entry.scores)
        told = [entry.scores[common] for entry in known if common in entry.scores]
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
            "pool": fmean(told),
            "generated": earlier["generated"] if earlier else [],
        }
        self.diagnostics = [other for other in self.diagnostics if other["scores"] < len(known)] + [row]
        self._note()
        return found

    def _best(self, known: Sequence[Entry], count: int) -> list[Architecture]:
        """So many of the best that keep the limits."""
        ordered = sorted(known, key=lambda entry: (self.rank(entry), key(entry.architecture)), reverse=True)
        usable = (entry.architecture for entry in ordered if self.sampler.feasible(entry.architecture))
        return list(islice(usable, count))

    def _near_best(self, done: Sequence[Entry], rng: Random) -> Architecture | None:
        """A new architecture a few changes away from the best; None where there is none."""
        best = self._best(done, 1)
        return self.sampler.walk(best[0], rng, self.history) if best else None

    # The account of the rounds.

    def _tell(self, architecture: Architecture, predicted: float) -> None:
        """Enter what is proposed; a search that was rebuilt may do so again."""
        generated = self.diagnostics[-1]["generated"]
        if all(each["key"] != key(architecture) for each in generated):
            generated.append({"key": key(architecture), "predicted": predicted, "score": None})
        self._note()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note the last score of a trial; see :meth:`ArchitectureSearcher.on_trial_complete`."""
        super().on_trial_complete(trial_id, result, error)
        self._note()

    def _note(self) -> None:
        """Enter the scores that are known by now, and write the journal."""
        done = {name: entry for name, entry in self.history.items() if entry.status == "done"}
        for row in self.diagnostics:
            for each in row["generated"]:
                entry = done.get(each["key"])
                if entry is not None:
                    each["score"] = entry.scores.get(row["fidelity"])
        if self.journal is not None and self.diagnostics:
            try:
                replace_text(self.journal, json.dumps(self.diagnostics), patience=0)
            except OSError as error:  # an account is no reason to end a search
                log.warning("cannot write %s, it is tried again after the next score: %s", self.journal, error)

    def _recall(self) -> None:
        """Read what an earlier process wrote into the journal."""
        if not self.diagnostics and self.journal is not None and self.journal.exists():
            try:
                rows = json.loads(self.journal.read_text(encoding="utf-8"))
                if not isinstance(rows, list) or not rows or not all(map(_is_round, rows)):
                    raise ValueError("it does not hold rounds")
            except (ValueError, RecursionError) as error:
                log.warning("%s is damaged: %s; the account begins anew", self.journal, error)
                return
            self.diagnostics = [row for row in rows if "fidelity" in row]  # older ones were of several

    def get_state(self) -> dict[str, Any]:
        """The candidates of this round and the account of all; see :meth:`ArchitectureSearcher.get_state`."""
        return {**super().get_state(), "round": self._round, "diagnostics": self.diagnostics}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned; see :meth:`ArchitectureSearcher.set_state`."""
        super().set_state(state)
        self._round = (
            None if state["round"] is None else (list(state["round"][0]), [(f, p) for f, p in state["round"][1]])
        )
        self.diagnostics = copy.deepcopy(state["diagnostics"])


def _is_round(row: Any) -> bool:
    """Whether this may be a round of the journal; those of earlier versions have other names in it."""
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
        and all(isinstance(each, dict) and _is_told(each) for each in row["generated"])
    )


def _is_told(each: dict[str, Any]) -> bool:
    score = each.get("score", "")
    right = score is None or isinstance(score, (int, float))
    return right and isinstance(each.get("key"), str) and isinstance(each.get("predicted"), (int, float))
