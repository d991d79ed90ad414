"""How an exported network for texts is fed and what it answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from raynas.export.signature import Inputs, Signature, code_blocks

__all__ = ["TextSignature"]


@dataclass(frozen=True)
class TextSignature(Signature):
    """A network that reads a text word by word and predicts the next one.

    Args:
        example: Words, int64 [N], and the state before them, [N, ...]; at the beginning of a text it is zero.
        end: The word at the end of a line, or of a paragraph; None where the vocabulary has none.
        rare: The word for words that the vocabulary does not have; None where it has none.
        paragraphs: Whether texts are lower-case words and punctuation marks in paragraphs, not words between spaces.
    """

    vocabulary: tuple[str, ...]
    end: str | None = None
    rare: str | None = None
    paragraphs: bool = False

    def random(self, batch: int) -> Inputs:
        """Random words and a random state."""
        generator = torch.Generator().manual_seed(batch)
        words = torch.randint(len(self.vocabulary), (batch,), generator=generator)
        return words, torch.randn((batch, *self._state_shape), generator=generator)

    @property
    def input_names(self) -> tuple[str, ...]:
        """``words`` and ``state``."""
        return ("words", "state")

    @property
    def output_names(self) -> tuple[str, ...]:
        """``logits`` of the next word, and ``next_state``."""
        return ("logits", "next_state")

    @property
    def _state_shape(self) -> tuple[int, ...]:
        return tuple(self.example[1].shape[1:])

    @property
    def _tokens(self) -> str:
        if self.paragraphs:
            return "lower-case words, numbers and punctuation marks; an empty line ends a paragraph"
        return "words stand between spaces; the end of a line ends a sentence"

    @property
    def metadata(self) -> dict[str, Any]:
        """The inputs, the tokenisation and where the vocabulary is."""
        return {
            "inputs": {"words": ["N"], "state": ["N", *self._state_shape]},
            "first_state": "zeros",
            "tokenisation": self._tokens,
            "end": self.end,
            "unknown": self.rare,
            "outputs": {"logits": ["N", len(self.vocabulary)], "next_state": ["N", *self._state_shape]},
            "vocabulary": list(self.vocabulary),
        }

    @property
    def files(self) -> Mapping[str, Any]:
        """``vocabulary.json``: the word of each number."""
        return {"vocabulary.json": list(self.vocabulary)}

    @property
    def code(self) -> str:
        """``vocabulary``, ``tokenise`` and ``read``."""
        return _TEXTS.format(
            shape=self._state_shape, end=self.end, rare=self.rare, tokens=self._tokens,
            split=_PARAGRAPHS if self.paragraphs else _LINES,
        )  # fmt: skip

    def readme(self, title: str, formats: Collection[str]) -> str:
        """Three lines that load and predict, for each format."""
        shape = ", ".join(map(str, self._state_shape))
        lines = {
            "safetensors": [
                "from model import load, read, tokenise, vocabulary",
                "network = load()",
                "predicted = vocabulary[read(network, tokenise(text))[-1].argmax()]",
            ],
            "torch_export": [
                "import torch",
                f'network, state = torch.export.load("model.pt2").module(), torch.zeros(1, {shape})',
                "for word in words: logits, state = network(torch.tensor([word]), state)",
            ],
            "onnx": [
                "import onnxruntime, numpy",
                f'session, state = onnxruntime.InferenceSession("model.onnx"), numpy.zeros((1, {shape}), "float32")',
                'for word in words: logits, state = session.run(None, {"words": numpy.array([word]), "state": state})',
            ],
        }
        what = (
            "The network reads one word after the other and predicts the next one. `text` is a string: "
            f"{self._tokens}{f' (`{self.end}`)' if self.end else ''}. "
            f"{f'Words that are not in the vocabulary are `{self.rare}`. ' if self.rare else ''}"
            "`words` are the numbers of its words, their places in `vocabulary.json`, which `tokenise` of `model.py` "
            "gives too; `logits.argmax()` is the number of the predicted word."
        )
        return "\n".join([f"# {title}", "", what, "", *code_blocks(lines, formats)])


_TEXTS = '''
import json
import re

vocabulary = tuple(json.loads(Path(__file__).with_name("vocabulary.json").read_text(encoding="utf-8")))
"""The word of each number."""
state_shape = {shape}
"""Of the state of one text, without the batch."""
END, UNKNOWN = {end!r}, {rare!r}
_numbers = {{word: number for number, word in enumerate(vocabulary)}}


def tokenise(text):
    """The numbers of the words of a text, int64 [N]: {tokens}."""
{split}
    if UNKNOWN is None and not _numbers.keys() >= set(words):
        raise ValueError(f"the vocabulary has no word {{next(word for word in words if word not in _numbers)!r}}")
    return torch.tensor([_numbers.get(word, _numbers.get(UNKNOWN)) for word in words], dtype=torch.int64)


def read(network, words, state=None):
    """Read words, int64 [N]; returns the logits of the word after each of them, [N, len(vocabulary)]."""
    logits = []
    with torch.no_grad():
        state = next(network.parameters()).new_zeros(1, *state_shape) if state is None else state
        for word in words:
            found, state = network(word[None], state)
            logits.append(found[0])
    return torch.stack(logits)

'''

_LINES = """    words = []
    for line in text.split("\\n"):
        words += line.split() if END is None else [*line.split(), END]
    if END is not None:
        words.pop()  # the last line is not ended"""

_PARAGRAPHS = """    words = []
    for paragraph in re.split(r"\\n\\s*\\n", text):
        words += [*re.findall(r"\\w+|[^\\w\\s]", paragraph.lower()), END]
    words.pop()  # the last paragraph is not ended"""
