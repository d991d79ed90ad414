"""Sizes and schedule of NAO."""

from __future__ import annotations

import math
from dataclasses import dataclass

from raynas.searchers.checks import check_counts, check_numbers, check_ranges

__all__ = ["NAOSettings"]

_COUNTS = ("retrain", "surplus", "raises", "spellings", "batch", "embedding", "hidden", "width")
_NUMBERS = ("step", "growth", "held_out", "learning_rate", "decay", "weight", "dropout")


@dataclass(frozen=True)
class NAOSettings:
    """How the space is learned and used. The defaults suit spaces of up to some twenty decisions on one CPU core.

    The paper's, for its cells of 40 words: ``embedding=48, hidden=96, layers=3, width=200, dropout=0.1, batch=100,
    learning_rate=0.001, steps=6000, seconds=None, startup=600, retrain=300, seeds=100, surplus=1, draws=0``. Other than
    its code then: a word is embedded with its place, and the encoder reads words one by one, not in pairs; what is
    learned of a score is its standing, not its share of the range; a fifth is held out at first; the step of the climb
    rises until there are twice as many as a round proposes, of which it takes the better predictions.

    Attributes:
        startup: Random architectures before the space is learned.
        retrain: It is learned anew after so many scores.
        seeds: The climb starts from so many of the best. Default: from a sixth of those known, as the paper's first one
            does, and from 10 at least: where the few best have no unknown neighbours left, the next ones have.
        surplus: So many times as many architectures are generated as are needed; the best predictions are taken.
        step: Of the climb, at first, where the embedding of a word has length 1. The direction's length does not count:
            so a step means the same in every space, unlike in the paper, where it multiplies the slope itself.
        growth: The step is multiplied by this until there are enough new architectures...
        raises: ...at most so often.
        draws: At each step, beside the likeliest sequence, so many are drawn from the decoder. The paper has none.
        spellings: Sequences of the same network that the training draws from.
        held_out: Share of the scores that is left out of the first three fifths of the training, by which the predictor
            is then measured.
        steps: Of gradient descent, each time. For the paper's 1000 epochs: 1000 times scores / batch. Default: 200, and
            more where sequences are long: see :meth:`steps_for`.
        seconds: If these do not suffice for ``steps``, as many are made as they do suffice for; None: no bound.
        batch: Sequences in a step.
        learning_rate: Of Adam; it falls to 0 along a cosine, before and after what is held out joins.
        decay: L2 penalty.
        weight: Of the predictor's error in the loss; the rest is the decoder's. The paper's; its code has 0.8.
        embedding: Size of a word's vector.
        hidden: Size of the LSTMs.
        layers: Hidden layers of the predictor.
        width: Of each of them.
        dropout: In the predictor.
        device: "cpu", "cuda", or as PyTorch names it.

    Raises:
        ValueError: A setting out of range.
    """

    startup: int = 20
    retrain: int = 10
    seeds: int | None = None
    surplus: int = 5
    step: float = 0.1
    growth: float = 1.3
    raises: int = 20
    draws: int = 4
    spellings: int = 8
    held_out: float = 0.2
    steps: int | None = None
    seconds: float | None = 60.0
    batch: int = 64
    learning_rate: float = 0.01
    decay: float = 1e-4
    weight: float = 0.9
    embedding: int = 24
    hidden: int = 48
    layers: int = 2
    width: int = 64
    dropout: float = 0.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        given = [name for name in ("seeds", "steps") if getattr(self, name) is not None]
        counts = (*_COUNTS, *given)
        check_counts(self, {"startup": 2, "layers": 0, "draws": 0, **dict.fromkeys(counts, 1)})
        check_numbers(self, _NUMBERS if self.seconds is None else (*_NUMBERS, "seconds"))
        legal = {
            "step": (0.0 < self.step < math.inf, "more than 0"),
            "growth": (1.0 < self.growth < math.inf, "more than 1"),
            "held_out": (0.0 <= self.held_out <= 0.5, "from 0 to 0.5"),
            "seconds": (self.seconds is None or 0.0 < self.seconds < math.inf, "more than 0, or None"),
            "learning_rate": (0.0 < self.learning_rate < math.inf, "more than 0"),
            "decay": (0.0 <= self.decay < math.inf, "0 or more"),
            "weight": (0.0 <= self.weight <= 1.0, "from 0 to 1"),
            "dropout": (0.0 <= self.dropout < 1.0, "from 0 to below 1"),
        }
        check_ranges(self, legal)

    def steps_for(self, words: int, scores: int) -> int:
        """How many steps a training makes on so many scores of sequences of so many words.

        Of 40 cells of NAO, of 40 words each, 200 steps left a quarter wrongly decoded.
        """
        return self.steps or max(200, 12 * words + words * scores // 40)
