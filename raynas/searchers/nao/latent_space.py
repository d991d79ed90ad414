"""The latent space of NAO: trained on scored architectures, it generates new ones."""

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
from raynas.searchers.models.transforms import normal_score
from raynas.searchers.nao.diagnostics import pairwise_accuracy
from raynas.searchers.nao.network import EncoderDecoder, Grammar
from raynas.searchers.nao.settings import NAOSettings

__all__ = ["Fit", "LatentSpace"]

_WARM_UP, _TIMED = 2, 6  # steps before the clock is looked at, and steps that it measures
_FIRST = 0.6  # share of the steps that are made without what is held out


@dataclass(frozen=True)
class Fit:
    """Result of a training.

    Attributes:
        steps: Number of steps.
        seconds: Duration.
        reconstructed: Share of the architectures that the decoder writes exactly as the encoder read them.
        held_out: Number of architectures held out at first.
        pairwise: Share of their pairs that the predictor then ordered rightly; None where there is no pair.
        bound: Whether the time limit reduced the number of steps.
    """

    steps: int
    seconds: float
    reconstructed: float
    held_out: int
    pairwise: float | None
    bound: bool


class LatentSpace:
    """Learns an embedding of scored architectures and generates new ones by gradient ascent in it.

    Everything depends on the arguments and the seed alone, down to the last bit on a CPU: PyTorch's own generator is
    left as it was. The exception is a training that the time limit ends early; :attr:`Fit.steps` then says how to
    repeat it.

    Args:
        space: Whose architectures are learned.
        settings: Sizes and schedule.
        seed: Of the weights, the batches, and what is held out.
    """

    def __init__(self, space: SearchSpace, settings: NAOSettings | None = None, seed: str | int = 0) -> None:
        self.space, self.settings, self.seed = space, settings or NAOSettings(), seed
        self.tokenizer = SequenceEncoder(space)
        self.device = torch.device(self.settings.device)
        legal = torch.zeros(len(self.tokenizer.legal), len(self.tokenizer.words), dtype=torch.bool)
        for place, words in enumerate(self.tokenizer.legal):
            legal[place, words] = True
        self._grammar = Grammar(legal.to(self.device), self.tokenizer.under, self.tokenizer.absent)
        self._sequences: dict[str, list[list[int]]] = {}
        self.model: EncoderDecoder | None = None

    def fit(self, architectures: Sequence[Architecture], scores: Sequence[float], steps: int | None = None) -> Fit:
        """Trains on N architectures and their scores from scratch.

        The targets are normal scores (:mod:`raynas.searchers.models.transforms`), scaled to 0 to 1.

        Args:
            architectures: In their canonical form.
            scores: Finite, larger is better.
            steps: Make exactly so many steps, whatever the time limit: to repeat an earlier training.

        Raises:
            ValueError: There are fewer than two scores.
        """
        if len(scores) < 2:
            raise ValueError(f"a latent space needs at least two scores, got {len(scores)}")
        ordered = [(0, score) for score in sorted(scores)]
        places = np.array([normal_score((0, score), ordered) for score in scores])
        targets = self._tensor((places - places.min()) / (np.ptp(places) or 1.0), torch.float32)
        sequences = self._tensor([self._equivalent_sequences(architecture) for architecture in architectures])
        rng = Random(f"{self.seed}/nao/{len(scores)}")
        held = rng.sample(range(len(scores)), int(self.settings.held_out * len(scores)))
        begin = time.perf_counter()
        with self._seeded(rng.getrandbits(32)):
            s = self.settings
            model = EncoderDecoder(self._grammar, s.embedding, s.hidden, s.layers, s.width, s.dropout)
            self.model = model.to(self.device)
            made = steps or self._steps_in_time(sequences, targets)
            torch.manual_seed(rng.getrandbits(32))
            pairwise = self._train(sequences, targets, held, made)
            with torch.no_grad():
                written = model.decode(model.encode(sequences[:, 0]))
        exact = (written == sequences[:, 0]).all(1).float().mean().item()
        return Fit(made, time.perf_counter() - begin, exact, len(held), pairwise, made < self._full_steps(len(scores)))

    def _steps_in_time(self, sequences: Tensor, targets: Tensor) -> int:
        """Number of steps within the time limit, measured on a copy."""
        steps = self._full_steps(len(targets))
        if self.settings.seconds is None:
            return steps
        model, everything = copy.deepcopy(self._fitted), list(range(len(targets)))
        self._optimize(model, sequences, targets, everything, _WARM_UP)
        begin = time.perf_counter()
        self._optimize(model, sequences, targets, everything, _TIMED)
        each = (time.perf_counter() - begin) / _TIMED
        return max(1, min(steps, int(self.settings.seconds / each)))

    def _full_steps(self, scores: int) -> int:
        return self.settings.steps_for(len(self.tokenizer.legal), scores)

    def _train(self, sequences: Tensor, targets: Tensor, held: list[int], steps: int) -> float | None:
        """Trains on N architectures in K sequences each [N, K, T]; returns the accuracy on the held-out ones."""
        model, first, pairwise = self._fitted, 0, None
        if held:
            first = round(_FIRST * steps)
            known = [row for row in range(len(targets)) if row not in held]
            self._optimize(model, sequences, targets, known, first)
            with torch.no_grad():
                predicted = model.predict(model.encode(sequences[held, 0]))
            pairwise = pairwise_accuracy(predicted.tolist(), targets[held].tolist())
        self._optimize(model, sequences, targets, list(range(len(targets))), steps - first)
        return pairwise

    def _optimize(self, model: EncoderDecoder, sequences: Tensor, targets: Tensor, rows: list[int], steps: int) -> None:
        """Makes steps on these rows with a learning rate annealed to 0."""
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
            raise ValueError("the latent space was not trained: call fit first")
        return self.model

    def predict(self, architectures: Sequence[Architecture]) -> list[float]:
        """The predicted score of each architecture, between 0 and 1.

        Raises:
            ValueError: It was not trained.
        """
        if not architectures:
            return []
        with self._seeded(0), torch.no_grad():
            model = self._fitted
            written = [self.tokenizer.write(architecture) for architecture in architectures]
            predicted: list[float] = model.predict(model.encode(self._tensor(written))).tolist()
            return predicted

    def generate(
        self,
        seeds: Sequence[Architecture],
        count: int,
        taken: Collection[str] = (),
        feasible: Callable[[Architecture], bool] = lambda _: True,
    ) -> list[tuple[Architecture, float]]:
        """Generates new architectures by gradient ascent from the seeds; with their predictions, best first.

        Args:
            seeds: Architectures where the ascent starts.
            count: Number of architectures; fewer where the largest step size yields no more.
            taken: Keys of the architectures that are not new.
            feasible: Whether an architecture may be generated.

        Raises:
            ValueError: It was not trained.
        """
        new: dict[str, Architecture] = {}
        for form in self._ascend(seeds):
            name = key(form)
            if name not in taken and name not in new and feasible(form):
                new[name] = form
            if len(new) >= self.settings.surplus * count:
                break
        forms = list(new.values())
        ranked = sorted(zip(forms, self.predict(forms), strict=True), key=lambda pair: -pair[1])
        return ranked[:count]

    def _ascend(self, seeds: Sequence[Architecture]) -> Iterator[Architecture]:
        """Decodes architectures at growing step sizes from each seed."""
        if not seeds:
            return
        model, settings = self._fitted, self.settings
        with self._seeded(0):
            start = model.encode(self._tensor([self.tokenizer.write(seed) for seed in seeds])).detach()
            direction = model.direction(start)
        for number in range(settings.raises):
            with self._seeded(number):
                step = settings.step * settings.growth**number
                moved = torch.nn.functional.normalize(start + step * direction, dim=-1)
                written = model.decode(moved).tolist()
                if settings.draws:
                    written += model.decode(moved.repeat(settings.draws, 1, 1), sampled=True).tolist()
            yield from (form for form in map(self.tokenizer.read, written) if form is not None)

    def _equivalent_sequences(self, architecture: Architecture) -> list[list[int]]:
        """K equivalent sequences; half of them are the architecture's own where there are others."""
        name = key(architecture)
        if name not in self._sequences:
            slots = self.settings.spellings
            own, *others = self.tokenizer.equivalent_sequences(architecture, Random(f"{self.seed}/{name}"), slots)
            cycle = [spelling for other in others for spelling in (own, other)] or [own]
            self._sequences[name] = [cycle[place % len(cycle)] for place in range(slots)]
        return self._sequences[name]

    def _tensor(self, values: object, kind: torch.dtype = torch.long) -> Tensor:
        return torch.as_tensor(values, dtype=kind, device=self.device)

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """Seeds PyTorch's generator and uses one thread, for bitwise reproducible sums; restores both."""
        threads = torch.get_num_threads()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            torch.set_num_threads(1)
            try:
                yield
            finally:
                torch.set_num_threads(threads)
