"""Texts by name, as the numbers of their words.

A text is read word by word, its vocabulary made of the training part. What lies in a folder is taken as it is: words
stand between spaces, every end of a line is a word of its own, ``<eos>``; or there is one word on each line, and an
empty line is such an end. A text that has no word ``<unk>`` for rare ones gets it: for the words of its training part
that stand there once, and for all that are not in it.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from raynas.exceptions import DataError

__all__ = ["END", "RARE", "TEXTS", "Text", "TextData", "load_text", "of_words"]

_FILES = {
    "text": ("{}.txt", "{}.tokens"),
    "penn_treebank": ("ptb.{}.txt", "{}.txt"),
    "wikitext2": ("wiki.{}.tokens", "{}.txt"),
}
TEXTS = ("pydoc_topics", *_FILES)
_PARTS = ("train", "valid", "test")
_SPLITS = ("train", "validation", "test")
END, RARE = "<eos>", "<unk>"
_PASSAGE = 8
"""Words in a row by which a repetition is known."""


@dataclass(frozen=True)
class Text:
    """A text.

    Args:
        words: The number of each word: int64 [N], never written in place.

    Raises:
        DataError: Another type or shape, or fewer than two words.
    """

    words: Tensor

    def __post_init__(self) -> None:
        if self.words.dtype != torch.int64 or self.words.ndim != 1:
            raise DataError(f"a text must be int64 [N], this is {self.words.dtype} {list(self.words.shape)}")
        if len(self.words) < 2:
            raise DataError(f"a text of {len(self.words)} words has none to predict: at least 2 are needed")

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True)
class TextData:
    """Three parts of a text, and its vocabulary.

    Args:
        name: As it was asked for.
        train: What weights are trained on.
        validation: What architectures are compared on.
        test: Looked at once, at the end.
        vocabulary: The word of each number.
        task: The :class:`raynas.tasks.base.Task` that is learned from it, ``package.module:Class``.
        tokenisation: How a text becomes words: ``lines``, words between spaces and an end after each line, or
            ``paragraphs``, lower-case words and punctuation marks and an end after each paragraph.

    Raises:
        DataError: A number without a word.
    """

    name: str
    train: Text
    validation: Text
    test: Text
    vocabulary: tuple[str, ...]
    task: str = "raynas.tasks.language_modeling:Language"
    tokenisation: Literal["lines", "paragraphs"] = "lines"

    def __post_init__(self) -> None:
        for name in _SPLITS:
            words = getattr(self, name).words
            if int(words.min()) < 0 or int(words.max()) >= self.classes:
                raise DataError(f"{self.name}: {name} has words beyond the vocabulary of {self.classes}")

    @property
    def classes(self) -> int:
        """How many words there are to tell apart."""
        return len(self.vocabulary)

    def __str__(self) -> str:
        return f"words, {self.classes} different ones"

    @property
    def bytes(self) -> int:
        """What training and validation take in memory."""
        return self.train.words.nbytes + self.validation.words.nbytes

    def without_test(self) -> TextData:
        """The same with validation in the place of test: what a search may see."""
        return dataclasses.replace(self, test=self.validation)

    def first(self, limit: int) -> TextData:
        """The same with at most so many words of each part."""
        train, validation, test = (Text(getattr(self, name).words[:limit]) for name in _SPLITS)
        return dataclasses.replace(self, train=train, validation=validation, test=test)

    def arrays(self) -> dict[str, Any]:
        """As :func:`raynas.data.dataset.to_arrays`."""
        parts = {f"{name}.words": getattr(self, name).words.cpu().numpy() for name in _SPLITS}
        plain = ("name", "vocabulary", "task", "tokenisation")
        return parts | {name: getattr(self, name) for name in plain}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Any]) -> TextData:
        """The inverse of :meth:`arrays`."""
        train, validation, test = (Text(torch.from_numpy(arrays[f"{name}.words"])) for name in _SPLITS)
        vocabulary, tokenisation = tuple(arrays["vocabulary"]), arrays["tokenisation"]
        return cls(arrays["name"], train, validation, test, vocabulary, arrays["task"], tokenisation)


def load_text(name: str, folder: Path | None, validation: float | int, limit: int | None) -> TextData:
    """Read a text.

    Args:
        name: One of :data:`TEXTS`.
        folder: Of the files ``train.txt``, ``valid.txt`` and ``test.txt`` (or ``.tokens``; for Penn Treebank and
            WikiText-2 also under their own names), or one file: the last tenth of its words is test. Not for
            ``pydoc_topics``, the help texts of Python, which come with it.
        validation: Share of the training words, or how many, that are held out where the text has no validation part
            of its own; they are the last ones.
        limit: At most so many words of each part; a validation part that is cut off from the training words counts
            with these.

    Raises:
        DataError: Files are not there or hold no text.
    """
    if name == "pydoc_topics":
        found = of_words(name, _tenth(_pydoc()), validation, limit)
        return dataclasses.replace(found, tokenisation="paragraphs")
    if folder is None:
        raise DataError(f"data set {name!r} needs the folder or the file that holds it: data.folder=...")
    parts = _tenth(list(_read(folder))) if folder.is_file() else _folder(name, folder)
    return of_words(name, parts, validation, limit)


def _tenth(words: Sequence[str]) -> dict[str, Sequence[str]]:
    cut = len(words) - len(words) // 10
    return {"train": words[:cut], "test": words[cut:]}


def _folder(name: str, folder: Path) -> dict[str, Sequence[str]]:
    if not folder.is_dir():
        raise DataError(f"data set {name!r}: there is no folder or file {folder.absolute()}")
    patterns = _FILES[name]
    for pattern in patterns:
        found = {part: folder / pattern.format(part) for part in _PARTS}
        there: dict[str, Sequence[str]] = {p: list(_read(path)) for p, path in found.items() if path.is_file()}
        if {"train", "test"} <= there.keys():
            return there
    wanted = " or ".join(f"{p.format('train')}, {p.format('valid')} and {p.format('test')}" for p in patterns)
    raise DataError(f"data set {name!r}: {folder.absolute()} has no {wanted}")


def _read(path: Path) -> Iterator[str]:
    """The words of a file."""
    try:
        # Other signs that Python takes for the end of a line may stand within one.
        lines = [line.split() for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    singly = all(len(words) <= 1 for words in lines)
    for words in lines:
        yield from words
        if not (singly and words):
            yield END


def _pydoc() -> list[str]:
    """The help texts of Python: words, numbers and signs, in small letters, an end after each paragraph.

    Some topics repeat what others say. A paragraph with a passage that stood before is left out: else much of what is
    tested would have been trained on.
    """
    topics: Mapping[str, str] = importlib.import_module("pydoc_data.topics").topics
    paragraphs = (
        tuple(re.findall(r"\w+|[^\w\s]", paragraph.lower()))
        for _, text in sorted(topics.items())
        for paragraph in re.split(r"\n\s*\n", text)
    )
    words: list[str] = []
    seen: set[tuple[str, ...]] = set()
    for found in dict.fromkeys(paragraphs):
        passages = {found[i : i + _PASSAGE] for i in range(max(len(found) - _PASSAGE + 1, 1))}
        if found and not passages & seen:
            words += [*found, END]
        seen |= passages
    return words


def of_words(
    name: str, parts: Mapping[str, Sequence[str]], validation: float | int = 0.1, limit: int | None = None
) -> TextData:
    """A data set of texts in memory.

    Args:
        name: What to call it.
        parts: The words of ``train``, ``test`` and, unless they are to be the end of the training words, ``valid``.
        validation: How many these are, or their share.
        limit: See :func:`load_text`.

    Raises:
        DataError: A part is too short.
    """
    train, test = list(parts["train"][:limit]), parts["test"][:limit]
    valid = parts.get("valid")
    if valid is None:
        count = round(validation * len(train)) if isinstance(validation, float) else validation
        if not 1 < count < len(train) - 1:
            raise DataError(f"validation={validation} leaves no split: there are {len(train)} training words to divide")
        train, valid = train[:-count], train[-count:]
    counts = Counter(train)
    marked = RARE in counts
    known = [word for word, count in counts.items() if marked or count > 1]
    vocabulary = tuple(known) if marked else (*known, RARE)
    numbers = {word: number for number, word in enumerate(vocabulary)}
    divided = dict(zip(_SPLITS, (train, valid[:limit], test), strict=True))
    for part, words in divided.items():
        if len(words) < 2:
            raise DataError(f"{name}: a {part} part of {len(words)} words has none to predict: at least 2 are needed")
    trained, validated, tested = (_numbered(words, numbers) for words in divided.values())
    return TextData(name, trained, validated, tested, vocabulary)


def _numbered(words: Iterable[str], numbers: Mapping[str, int]) -> Text:
    rare = numbers[RARE]
    return Text(torch.from_numpy(np.fromiter((numbers.get(word, rare) for word in words), np.int64)))
