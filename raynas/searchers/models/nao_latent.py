"""The continuous space of NAO: fitted to scored architectures, it generates new ones. Nothing of Tune in it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor

from raynas.architecture import Architecture, key
from raynas.search_space.sequence import SequenceEncoder
from raynas.search_space.space import SearchSpace
from raynas.searchers.diagnostics import pairwise_accuracy
from raynas.searchers.models.nao_network import EncoderDecoder, Grammar
from raynas.searchers.models.standing import standing
from raynas.searchers.nao_settings import NAOSettings

__all__ = ["Fit", "LearnedSpace"]

_WARM_UP, _TIMED = 2, 6  # steps before the clock is looked at, and steps that it measures
_FIRST = 0.6  # share of the steps that are made without what is held out


@dataclass(frozen=True)
class Fit:
    """What came out of a training.

    Attributes:
        steps: As many were made.
        seconds: They took so long.
        reconstructed: Share of the architectures that the decoder writes exactly as the encoder read them.
        held_out: So many architectures were held out at first.
        pairwise: Share of their pairs that the predictor then ordered rightly; None where there is no pair.
        bound: Whether the seconds did not suffice for all steps.
    """

    steps: int
    seconds: float
    reconstructed: float
    held_out: int
    pairwise: float | None
    bound: bool


class LearnedSpace:
    """Learns an embedding of scored architectures and generates new ones by going uphill in it.

    Everything depends on the arguments and the seed alone, down to the last bit on a CPU: PyTorch's own generator is
    left as it was. The one exception is a bound in seconds that bites; :attr:`Fit.steps` then says how to repeat it.

    Args:
        space: Whose architectures are learned.
        settings: Sizes and schedule.
        seed: Of the weights, the batches, and what is held out.
    """

    def __init__(self, space: SearchSpace, settings: NAOSettings | None = None, seed: str | int = 0) -> None:
        self.space, self.settings, self.seed = space, settings or NAOSettings(), seed
        self.speller = SequenceEncoder(space)
        self.device = torch.device(self.settings.device)
        legal = torch.zeros(len(self.speller.legal), len(self.speller.words), dtype=torch.bool)
        for place, words in enumerate(self.speller.legal):
            legal[place, words] = True
        self._grammar = Grammar(legal.to(self.device), self.speller.under, self.speller.absent)
        self._spelled: dict[str, list[list[int]]] = {}
        self.model: EncoderDecoder | None = None

    def fit(self, architectures: Sequence[Architecture], scores: Sequence[float], steps: int | None = None) -> Fit:
        """Learn N architectures and their scores from the beginning.

        What is learned of a score is where it stands among the others (:mod:`raynas.searchers.models.standing`), from 0
        to 1.

        Args:
            architectures: In their canonical form.
            scores: Finite, larger is better.
            steps: Make exactly so many, without a look at the clock: to repeat an earlier training.

        Raises:
            ValueError: There are fewer than two scores.
        """
        if len(scores) < 2:
            raise ValueError(f"a space is learned from two scores or more, got {len(scores)}")
        ordered = [(0, score) for score in sorted(scores)]
        places = np.array([standing((0, score), ordered) for score in scores])
        targets = self._tensor((places - places.min()) / (np.ptp(places) or 1.0), torch.float32)
        sequences = self._tensor([self._spell(architecture) for architecture in architectures])
        rng = Random(f"{self.seed}/nao/{len(scores)}")
        held = rng.sample(range(len(scores)), int(self.settings.held_out * len(scores)))
        begin = time.perf_counter()
        with self._seeded(rng.getrandbits(32)):
            s = self.settings
            model = EncoderDecoder(self._grammar, s.embedding, s.hidden, s.layers, s.width, s.dropout)
            self.model = model.to(self.device)
            made = steps or self._affordable(sequences, targets)
            torch.manual_seed(rng.getrandbits(32))
            pairwise = self._train(sequences, targets, held, made)
            with torch.no_grad():
                written = model.decode(model.encode(sequences[:, 0]))
        exact = (written == sequences[:, 0]).all(1).float().mean().item()
        return Fit(made, time.perf_counter() - begin, exact, len(held), pairwise, made < self._wanted(len(scores)))

    def _affordable(self, sequences: Tensor, targets: Tensor) -> int:
        """How many steps are made: tried on a copy."""
        wanted = self._wanted(len(targets))
        if self.settings.seconds is None:
            return wanted
        model, everything = copy.deepcopy(self._fitted), list(range(len(targets)))
        self._descend(model, sequences, targets, everything, _WARM_UP)
        begin = time.perf_counter()
        self._descend(model, sequences, targets, everything, _TIMED)
        each = (time.perf_counter() - begin) / _TIMED
        return max(1, min(wanted, int(self.settings.seconds / each)))

    def _wanted(self, scores: int) -> int:
        return self.settings.steps_for(len(self.speller.legal), scores)

    def _train(self, sequences: Tensor, targets: Tensor, held: list[int], steps: int) -> float | None:
        """Learn N architectures in K spellings [N, K, T]; accuracy on those held out at first."""
        model, first, pairwise = self._fitted, 0, None
        if held:
            first = round(_FIRST * steps)
            known = [row for row in range(len(targets)) if row not in held]
            self._descend(model, sequences, targets, known, first)
            with torch.no_grad():
                predicted = model.predict(model.encode(sequences[held, 0]))
            pairwise = pairwise_accuracy(predicted.tolist(), targets[held].tolist())
        self._descend(model, sequences, targets, list(range(len(targets))), steps - first)
        return pairwise

    def _descend(self, model: EncoderDecoder, sequences: Tensor, targets: Tensor, rows: list[int], steps: int) -> None:
        """So many steps on these rows, with a learning rate that falls to 0."""
        settings, known = self.settings, torch.tensor(rows)
        optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate, weight_decay=settings.decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
        model.train()
        for _ in range(steps):
            batch = known[torch.randperm(len(known))[: settings.batch]]
            spelled = torch.randint(sequences.shape[1], batch.shape)
            optimizer.zero_grad()
            model.loss(sequences[batch, spelled], targets[batch], settings.weight).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        model.eval()

    @property
    def _fitted(self) -> EncoderDecoder:
        if self.model is None:
            raise ValueError("this space has learned nothing yet: call fit first")
        return self.model

    def predict(self, architectures: Sequence[Architecture]) -> list[float]:
        """The predicted standing of each architecture, between 0 and 1.

        Raises:
            ValueError: Nothing was learned yet.
        """
        if not architectures:
            return []
        with self._seeded(0), torch.no_grad():
            model = self._fitted
            written = [self.speller.write(architecture) for architecture in architectures]
            predicted: list[float] = model.predict(model.encode(self._tensor(written))).tolist()
            return predicted

    def generate(
        self,
        seeds: Sequence[Architecture],
        count: int,
        taken: Collection[str] = (),
        admits: Callable[[Architecture], bool] = lambda _: True,
    ) -> list[tuple[Architecture, float]]:
        """New architectures, uphill of the seeds, with their predictions; best first.

        Args:
            seeds: Where the climb starts.
            count: So many are wanted. The climb ends without them where the largest step is reached.
            taken: Keys of the architectures that are not new.
            admits: Whether an architecture may be generated.

        Raises:
            ValueError: Nothing was learned yet.
        """
        found: dict[str, Architecture] = {}
        for form in self._climb(seeds):
            name = key(form)
            if name not in taken and name not in found and admits(form):
                found[name] = form
            if len(found) >= self.settings.surplus * count:
                break
        forms = list(found.values())
        ranked = sorted(zip(forms, self.predict(forms), strict=True), key=lambda pair: -pair[1])
        return ranked[:count]

    def _climb(self, seeds: Sequence[Architecture]) -> Iterator[Architecture]:
        """What is read at the end of larger and larger steps from each seed."""
        if not seeds:
            return
        model, settings = self._fitted, self.settings
        with self._seeded(0):
            start = model.encode(self._tensor([self.speller.write(seed) for seed in seeds])).detach()
            uphill = model.uphill(start)
        for number in range(settings.raises):
            with self._seeded(number):
                step = settings.step * settings.growth**number
                moved = torch.nn.functional.normalize(start + step * uphill, dim=-1)
                written = model.decode(moved).tolist()
                if settings.draws:
                    written += model.decode(moved.repeat(settings.draws, 1, 1), drawn=True).tolist()
            yield from (form for form in map(self.speller.read, written) if form is not None)

    def _spell(self, architecture: Architecture) -> list[list[int]]:
        """K spellings, half of them its own where there are others."""
        name = key(architecture)
        if name not in self._spelled:
            slots = self.settings.spellings
            own, *others = self.speller.spellings(architecture, Random(f"{self.seed}/{name}"), slots)
            cycle = [spelling for other in others for spelling in (own, other)] or [own]
            self._spelled[name] = [cycle[place % len(cycle)] for place in range(slots)]
        return self._spelled[name]

    def _tensor(self, values: object, kind: torch.dtype = torch.long) -> Tensor:
        return torch.as_tensor(values, dtype=kind, device=self.device)

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """PyTorch's generator and number of threads are ours for a while: more threads would add up differently."""
        threads = torch.get_num_threads()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            torch.set_num_threads(1)
            try:
                yield
            finally:
                torch.set_num_threads(threads)
