"""Language modelling: texts as rows that are read side by side, truncated backpropagation through time, perplexity.

A network for texts maps words [N, T] and the state that the words before them left (None at the beginning) to the
logits of the words that follow, [N, T, classes], and its state. In training it may return a third value, what it keeps
of each word, [N, T, units], for a penalty on how fast that changes. To be exported it has a method ``word(words [N],
state)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raynas.config.run import ExportConfig, SearchConfig
from raynas.config.train import Preset, TrainConfig
from raynas.data.text import END, RARE, Text, TextData
from raynas.exceptions import ConfigError
from raynas.export.signature import Inputs
from raynas.export.text_signature import TextSignature
from raynas.metrics import PERPLEXITY
from raynas.tasks.base import RankInfo, Task, TrainLoader, ValidationSlices
from raynas.utils.seeds import seed_of

__all__ = ["Language", "OneWord", "TextTrainLoader", "TextValidationSlices", "in_rows"]

_ROWS = 10
"""So many parts of a text are read side by side where it is all read once."""
_PIECE = 70
"""Words of each row that are read at once in evaluation; the answers do not depend on it."""


def in_rows(words: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """A text cut into equal rows, and the word that follows each: int64 [rows, (N - 1) // rows] both."""
    columns = (len(words) - 1) // rows
    return words[: rows * columns].view(rows, columns), words[1 : rows * columns + 1].view(rows, columns)


def _pieces(inputs: Tensor, targets: Tensor, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(first, last, _PIECE):
        columns = slice(start, min(start + _PIECE, last))
        yield inputs[:, columns], targets[:, columns]


class Language(Task):
    """Predicting the next word of a text."""

    metric = PERPLEXITY
    presets: tuple[Preset, ...] = ("auto", "words", "nao_words", "penn_treebank", "wikitext2")

    def __init__(self, data: TextData) -> None:
        self.data = data

    @property
    def preset(self) -> Preset:
        """For small texts."""
        return "words"

    @property
    def space_arguments(self) -> dict[str, int]:
        """``num_classes``: the size of the vocabulary."""
        return {"num_classes": self.data.classes}

    def check(self, train: TrainConfig) -> None:
        """Settings of images have no meaning here.

        Raises:
            ConfigError: One is set.
        """
        if train.labels == "random":
            raise ConfigError("train.labels = random is for images: what is learned of a text is its own next word")
        if train.augment not in ("auto", "none"):
            raise ConfigError(f"train.augment = {train.augment} is for images; legal for texts: auto, none")
        if train.accumulate > 1:
            raise ConfigError(f"train.accumulate = {train.accumulate} is for images; legal for texts: 1")
        if cutout := train.resolved().cutout:
            raise ConfigError(f"train.cutout = {cutout} is for images; legal for texts: 0")

    def describe(self, train: TrainConfig) -> list[str]:
        """The vocabulary and the tokenisation."""
        kinds = {"lines": "words between spaces", "paragraphs": "lower-case words and punctuation marks"}
        return [f"vocabulary: {self.data.classes} words; {kinds[self.data.tokenisation]}"]

    def example(self, batch: int = 1, train: TrainConfig | None = None) -> Tensor:
        """Words, int64 [batch, 1]: costs are those of one; or as many as ``train`` reads at once."""
        return torch.zeros(batch, 1 if train is None else train.bptt, dtype=torch.int64)

    def examples_per_epoch(self, train: TrainConfig) -> int:
        """Sequences of ``train.bptt`` words."""
        return max(len(self.data.train) // train.bptt, 1)

    def train_loader(
        self, recipe: TrainConfig, seed: int, rank: RankInfo, device: torch.device, shared: bool
    ) -> TextTrainLoader:
        """Sequences to train on."""
        return TextTrainLoader(self.data.train, recipe, seed, rank, device)

    def slices(self, settings: SearchConfig) -> int:
        """``settings.slices``, or fewer for a short text."""
        return _validation_size(self.data.validation, settings)[2]

    def validation_slices(self, settings: SearchConfig, device: torch.device) -> TextValidationSlices:
        """The validation text in slices."""
        return TextValidationSlices(self.data.validation, settings, device)

    def batches(self, split: Text, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """A whole text, in order, and the words that follow."""
        inputs, targets = in_rows(split.words.to(device), min(size, _ROWS, len(split) - 1))
        return _pieces(inputs, targets, 0, inputs.shape[1])

    def evaluate_batch(self, model: nn.Module, inputs: Tensor, targets: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The number of correct words and the summed cross-entropy of a piece: float32 [2]; the state behind it."""
        logits, state = model(inputs, state)
        logits = logits.float().flatten(0, 1)
        loss = F.cross_entropy(logits, targets.flatten(), reduction="sum")
        return torch.stack([(logits.argmax(1) == targets.flatten()).sum().float(), loss]), state

    def export_model(self, network: nn.Module) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """A network that takes word after word, and an example of a word and a state.

        Raises:
            ConfigError: The network has no method ``word``.
        """
        if not hasattr(network, "word"):
            raise ConfigError(
                f"{type(network).__name__} cannot be exported: a network for texts needs a method word(words, state)"
            )
        words = torch.arange(2) % self.data.classes
        with torch.no_grad():
            _, state = network.eval()(words[:, None])
            first, _ = network(words[:, None])
            again, _ = network(words[:, None], torch.zeros_like(state))
        if not torch.equal(first, again):
            raise ConfigError(f"{type(network).__name__} cannot be exported: its state None must be the same as zeros")
        return OneWord(network), (words, state)

    def export_signature(self, inputs: Inputs, settings: ExportConfig) -> TextSignature:
        """The tokenisation and the vocabulary."""
        words = self.data.vocabulary
        end, rare = (word if word in words else None for word in (END, RARE))
        return TextSignature(inputs, words, end, rare, self.data.tokenisation == "paragraphs")


class OneWord(nn.Module):
    """A language model as it is used: maps words [N] and the state before them to logits [N, classes] and a state."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, words: Tensor, state: Tensor) -> Any:
        """Read one word of each text."""
        return self.network.word(words, state)  # type: ignore[operator]


class TextTrainLoader(TrainLoader):
    """The training text of one rank, step by step, with the state carried from one step to the next.

    Where the sequences of a pass end is drawn anew for each: their lengths spread by 5 words around ``train.bptt``, one
    in twenty is half as long, and the learning rate of a step is in proportion to its length (Merity et al.,
    "Regularizing and Optimizing LSTM Language Models", ICLR 2018). All passes have as many steps.

    Args:
        text: To train on.
        recipe: ``batch_size`` rows of it are read side by side.
        seed: Decides everything drawn.
        rank: Of this process.
        device: Where the text stays.
    """

    def __init__(self, text: Text, recipe: TrainConfig, seed: int, rank: RankInfo, device: torch.device) -> None:
        assert recipe.batch_size is not None
        self.recipe = recipe
        self.seed, place, world = seed, rank.rank, rank.world_size
        self._first = place == 0
        rows = min(recipe.batch_size, max((len(text) - 1) // recipe.bptt, 1)) // world * world
        if not rows:
            raise ValueError(f"{len(text)} words in sequences of {recipe.bptt} are too few for {world} workers")
        inputs, targets = in_rows(text.words, rows)
        self.inputs, self.targets = inputs[place::world].to(device), targets[place::world].to(device)
        self.columns = inputs.shape[1]
        self.epoch_steps = max(self.columns // recipe.bptt, 1)
        self.examples = rows * self.columns // self.epoch_steps
        self._cuts: tuple[int, list[int]] | None = None
        self._before: Tensor | None = None
        self._after: Tensor | None = None

    def span(self, step: int) -> tuple[int, int]:
        """The columns that a step reads, from and to."""
        epoch, index = divmod(step, self.epoch_steps)
        if self._cuts is None or self._cuts[0] != epoch:
            generator = torch.Generator().manual_seed(seed_of(self.seed, "cuts", epoch))
            whole = torch.rand(self.epoch_steps, generator=generator) < 0.95
            lengths = torch.where(whole, self.recipe.bptt, self.recipe.bptt / 2)
            lengths = (lengths + 5 * torch.randn(self.epoch_steps, generator=generator)).clamp_min(5).double()
            cuts = (lengths.cumsum(0) / lengths.sum() * self.columns).round().long()
            self._cuts = (epoch, [0, *cuts.tolist()])
        return self._cuts[1][index], self._cuts[1][index + 1]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This rank's sequences of the step, which must be the one after that of the last call, and what follows."""
        self._before = None if step % self.epoch_steps == 0 else self._after
        first, last = self.span(step)
        return self.inputs[:, first:last], self.targets[:, first:last]

    def lr_scale(self, step: int) -> float:
        """In proportion to the length of the step's sequences; 1 in the mean."""
        first, last = self.span(step)
        return (last - first) * self.epoch_steps / self.columns

    def forward(self, model: nn.Module, inputs: Tensor) -> Any:
        """Logits and what the network keeps of each word; all paths of a step begin with the same state."""
        logits, after, *kept = model(inputs, self._before)
        self._after = after.detach()
        return logits, *kept

    def loss(self, outputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Cross-entropy, and the penalty on fast changes."""
        logits, *kept = outputs
        smoothing = self.recipe.label_smoothing or 0.0
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), label_smoothing=smoothing)
        if kept and self.recipe.slowness and targets.shape[1] > 1:
            loss = loss + self.recipe.slowness * kept[0].float().diff(dim=1).square().mean()
        return loss

    def state_dict(self) -> dict[str, Tensor]:
        """The state of the first rank; the other ranks begin with none."""
        return {} if self._after is None else {"state": self._after}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Go on with the state of a checkpoint."""
        self._after = tensors["state"].to(self.inputs.device) if self._first and "state" in tensors else None


def _validation_size(text: Text, settings: SearchConfig) -> tuple[int, int, int]:
    """The words, rows and slices of the validation text."""
    words = min((settings.validation_images or len(text)) + 1, len(text))
    # Slices shorter than this would tell more of the beginning of a text than of its course.
    rows = min(settings.batch_size, max((words - 1) // (_PIECE * settings.slices), 1))
    return words, rows, max(min(settings.slices, (words - 1) // rows), 1)


class TextValidationSlices(ValidationSlices):
    """The validation text in slices: of each of some rows so many columns. No state is carried from slice to slice.

    Args:
        text: To ask about.
        settings: ``slices``, ``validation_images`` (here: words, the first ones) and ``batch_size``, the rows.
        device: Where the text stays.
    """

    def __init__(self, text: Text, settings: SearchConfig, device: torch.device) -> None:
        words, rows, self.slices = _validation_size(text, settings)
        self.inputs, self.targets = in_rows(text.words[:words].to(device), rows)

    def batches(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One slice, from 0, in pieces that follow one another."""
        columns = self.inputs.shape[1]
        first, last = columns * number // self.slices, columns * (number + 1) // self.slices
        return _pieces(self.inputs, self.targets, first, last)

    def calibration(self) -> Iterator[Tensor]:
        """Nothing: networks for texts have no statistics of batches."""
        return iter(())
