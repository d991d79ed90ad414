"""The networks of NAO: an encoder of sequences, a predictor on its embedding, a decoder with attention.

Luo et al., "Neural Architecture Optimization", NeurIPS 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, normalize

__all__ = ["EncoderDecoder", "Grammar"]


@dataclass(frozen=True)
class Grammar:
    """Which words may stand where.

    Attributes:
        legal: [T, V], true where a word may stand at a place.
        under: For each place the earlier place and the word there that make it active; None where it always is.
        absent: The word at a place that is not active.
    """

    legal: Tensor
    under: list[tuple[int, int] | None]
    absent: int

    @property
    def words(self) -> int:
        """V, the start word counted."""
        return self.legal.shape[1]

    def allowed(self, place: int, before: Tensor) -> Tensor:
        """The words [B, V] that may follow the beginnings of B sequences [B, place]."""
        mask = self.legal[place].expand(len(before), -1)
        above = self.under[place]
        if above is None:
            return mask
        only = torch.zeros_like(self.legal[place])
        only[self.absent] = True
        return torch.where((before[:, above[0]] == above[1])[:, None], mask, only)

    def masks(self, sequences: Tensor) -> Tensor:
        """The words [B, T, V] that may stand at each place of these sequences [B, T]."""
        if not any(self.under):
            return self.legal.expand(len(sequences), -1, -1)
        return torch.stack([self.allowed(place, sequences) for place in range(sequences.shape[1])], dim=1)


class EncoderDecoder(nn.Module):
    """Sequences [B, T] of word numbers to an embedding [B, T, H] and its predicted score, and back to sequences.

    Args:
        grammar: Which words may stand where.
        embedding: E, of a word.
        hidden: H, of both LSTMs.
        layers: Hidden layers of the predictor.
        width: Of each of them.
        dropout: In the predictor.
    """

    def __init__(self, grammar: Grammar, embedding: int, hidden: int, layers: int, width: int, dropout: float) -> None:
        super().__init__()
        self.grammar = grammar
        length = len(grammar.legal)
        self.read_word = nn.Embedding(grammar.words, embedding)
        self.read_place = nn.Embedding(length * grammar.words, embedding)
        self.encoder = nn.LSTM(embedding, hidden, batch_first=True)
        sizes = [hidden] + [width] * layers
        hiddens = [
            part
            for inputs, outputs in pairwise(sizes)
            for part in (nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout))
        ]
        self.predictor = nn.Sequential(*hiddens, nn.Linear(sizes[-1], 1), nn.Sigmoid())
        self.write_word = nn.Embedding(grammar.words, embedding)
        self.write_place = nn.Embedding(length, embedding)
        self.decoder = nn.LSTM(embedding, hidden, batch_first=True)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.combine = nn.Linear(2 * hidden, hidden, bias=False)
        self.word = nn.Linear(hidden, grammar.words)

    def encode(self, sequences: Tensor) -> Tensor:
        """The embedding [B, T, H] of sequences [B, T]: a vector of length 1 for each place."""
        at = sequences + self.grammar.words * torch.arange(sequences.shape[1], device=sequences.device)
        states, _ = self.encoder(self.read_word(sequences) + self.read_place(at))
        return normalize(states, dim=-1)

    def pool(self, embedding: Tensor) -> Tensor:
        """The one vector [B, H], of length 1, that the predictor sees and the decoder starts from."""
        return normalize(embedding.mean(1), dim=-1)

    def predict(self, embedding: Tensor) -> Tensor:
        """The predicted scores [B], between 0 and 1."""
        predicted: Tensor = self.predictor(self.pool(embedding))[:, 0]
        return predicted

    def _logits(self, states: Tensor, embedding: Tensor) -> Tensor:
        """From the decoder's states [B, S, H], attending to the embedding [B, T, H], to words [B, S, V]."""
        weights = torch.softmax(self.query(states) @ embedding.transpose(1, 2), dim=-1)
        context = weights @ embedding
        logits: Tensor = self.word(torch.tanh(self.combine(torch.cat([context, states], dim=-1))))
        return logits

    def _start(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.pool(embedding)[None]
        return pooled, pooled

    def loss(self, sequences: Tensor, targets: Tensor, weight: float) -> Tensor:
        """``weight`` times the predictor's squared error, and the rest of 1 times the decoder's negative logarithm.

        Args:
            sequences: [B, T].
            targets: [B], between 0 and 1.
            weight: Between 0 and 1.
        """
        embedding = self.encode(sequences)
        error = mse_loss(self.predict(embedding), targets)
        before = torch.cat([torch.zeros_like(sequences[:, :1]), sequences[:, :-1]], dim=1)
        states, _ = self.decoder(self.write_word(before) + self.write_place.weight, self._start(embedding))
        logits = self._logits(states, embedding)
        logits = logits.masked_fill(~self.grammar.masks(sequences), -1e9)
        return weight * error + (1 - weight) * cross_entropy(logits.flatten(0, 1), sequences.flatten())

    @torch.no_grad()
    def decode(self, embedding: Tensor, sampled: bool = False) -> Tensor:
        """The most likely legal word at each position, one after the other: [B, T]; or ``sampled``."""
        state = self._start(embedding)
        word = torch.zeros(len(embedding), dtype=torch.long, device=embedding.device)
        sequences = torch.zeros(len(embedding), 0, dtype=torch.long, device=embedding.device)
        for place in range(len(self.grammar.legal)):
            entering = (self.write_word(word) + self.write_place.weight[place])[:, None]
            states, state = self.decoder(entering, tuple(part.contiguous() for part in state))
            logits = self._logits(states, embedding)[:, 0]
            if sampled:  # Gumbel-max trick
                logits = logits - torch.log(-torch.log(torch.rand_like(logits).clamp(1e-9, 1 - 1e-7)))
            word = logits.masked_fill(~self.grammar.allowed(place, sequences), -torch.inf).argmax(-1)
            sequences = torch.cat([sequences, word[:, None]], dim=1)
        return sequences

    def direction(self, embedding: Tensor) -> Tensor:
        """The gradient of the prediction: [B, T, H], of length 1 at a place on average (squared)."""
        embedding = embedding.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.predict(embedding).sum(), embedding)
        direction: Tensor = normalize(gradient.flatten(1), dim=-1).view_as(gradient) * gradient.shape[1] ** 0.5
        return direction
