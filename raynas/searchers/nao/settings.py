"""Settings of NAO, importable without torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raynas.config.types import Count, Share
from raynas.searchers.settings import FinitePositive, Natural, Probability, searcher_settings

__all__ = ["NAOSettings"]


@searcher_settings
class NAOSettings:
    """Settings of :class:`raynas.searchers.nao.searcher.NAO`.

    The defaults suit spaces of up to some twenty decisions on one CPU core.

    The paper's, for its cells of 40 words: ``embedding=48, hidden=96, layers=3, width=200, dropout=0.1, batch=100,
    learning_rate=0.001, steps=6000, seconds=None, startup=600, retrain=300, seeds=100, surplus=1, draws=0``. What
    still differs from its code: a word is embedded with its position, and the encoder reads words one by one, not in
    pairs; the targets are normal scores, not the score's share of the range; a fifth is held out at first; the step
    size of the gradient ascent grows until there are twice as many candidates as a round proposes.

    Attributes:
        startup: Random architectures before the model is trained.
        retrain: The model is trained again after so many scores.
        seeds: The gradient ascent starts from so many of the best. Default: a sixth of the scored ones, as in the
            first round of the paper, and at least 10.
        surplus: Factor by which more architectures are generated than needed; those with the best predictions are used.
        step: First step size of the gradient ascent, where the embedding of a word has length 1. It multiplies the
            normalized gradient, unlike in the paper, so that it means the same in every space.
        growth: The step size is multiplied by this until there are enough new architectures,
        raises: at most so often.
        draws: Sequences sampled from the decoder at each step size, beside the most likely one. The paper has none.
        spellings: Equivalent sequences of an architecture that the training samples from.
        held_out: Share of the scores that is held out of the first three fifths of the training to validate the
            predictor.
        steps: Of gradient descent, each time. For the paper's 1000 epochs: 1000 times scores / batch. Default: 200, and
            more where sequences are long: see :meth:`steps_for`.
        seconds: Time limit of a training; fewer steps are made if they would take longer. None: no limit.
        batch: Batch size.
        learning_rate: Of Adam; annealed to 0 along a cosine, both before and after the held-out scores are added.
        decay: L2 penalty.
        weight: Of the predictor's error in the loss; the rest is the decoder's. The paper's; its code has 0.8.
        embedding: Size of a word's vector.
        hidden: Size of the LSTMs.
        layers: Hidden layers of the predictor.
        width: Of each of them.
        dropout: In the predictor.
        device: "cpu", "cuda", or as PyTorch names it.

    Raises:
        ConfigError: A setting out of range.
    """

    startup: Annotated[int, Field(ge=2)] = 20
    retrain: Count = 10
    seeds: Count | None = None
    surplus: Count = 5
    step: FinitePositive = 0.1
    growth: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 1.3
    raises: Count = 20
    draws: Natural = 4
    spellings: Count = 8
    held_out: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    steps: Count | None = None
    seconds: FinitePositive | None = 60.0
    batch: Count = 64
    learning_rate: FinitePositive = 0.01
    decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    weight: Probability = 0.9
    embedding: Count = 24
    hidden: Count = 48
    layers: Natural = 2
    width: Count = 64
    dropout: Share = 0.0
    device: str = "cpu"

    def steps_for(self, words: int, scores: int) -> int:
        """Number of training steps for so many scores of sequences of so many words.

        With 40 cells of NAO, of 40 words each, 200 steps left a quarter wrongly decoded.
        """
        return self.steps or max(200, 12 * words + words * scores // 40)
