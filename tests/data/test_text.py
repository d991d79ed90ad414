"""Texts from files: words and ends of lines, vocabularies, parts; what is there of Penn Treebank and WikiText-2."""

import pytest
import torch

from raynas.data.dataset import from_arrays, to_arrays
from raynas.data.loading import load
from raynas.data.text import Text, TextData, of_words
from raynas.exceptions import DataError

LINES = {
    "train": "the cat sat\non the mat\nthe cat sat <unk>\n",
    "valid": "the dog sat\n",
    "test": "the mat sat on the cat\n",
}


def write(folder, names, lines=LINES):
    for part, name in names.items():
        (folder / name).write_text(lines[part], encoding="utf-8")


def told(text, data):
    return " ".join(data.vocabulary[number] for number in text.words)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("penn_treebank", "ptb.{}.txt"),
        ("penn_treebank", "{}.txt"),
        ("wikitext2", "wiki.{}.tokens"),
        ("text", "{}.txt"),
        ("text", "{}.tokens"),
    ],
)
def test_every_end_of_a_line_is_a_word(tmp_path, name, pattern):
    write(tmp_path, {part: pattern.format(part) for part in LINES})
    data = load(name, tmp_path)
    assert data.vocabulary == ("the", "cat", "sat", "<eos>", "on", "mat", "<unk>") and data.classes == 7
    assert told(data.train, data) == "the cat sat <eos> on the mat <eos> the cat sat <unk> <eos>"
    assert told(data.validation, data) == "the <unk> sat <eos>"  # dog is not in the training part
    assert told(data.test, data) == "the mat sat on the cat <eos>"


def test_a_word_on_each_line_and_an_empty_line_at_an_end(tmp_path):
    lines = {part: text.replace(" ", "\n").replace("\n\n", "\n") for part, text in LINES.items()}
    lines["train"] = "the\ncat\nsat\n\non\nthe\nmat\n\nthe\ncat\nsat\n<unk>\n\n"
    write(tmp_path, {"train": "train.txt", "test": "test.txt", "valid": "valid.txt"}, lines)
    data = load("text", tmp_path)
    assert told(data.train, data) == "the cat sat <eos> on the mat <eos> the cat sat <unk> <eos>"


def test_words_that_stand_once_are_rare_where_a_text_does_not_mark_them():
    data = of_words("mine", {"train": ["a", "b", "a", "c", "a", "b"], "valid": ["b", "c"], "test": ["a", "d"]})
    assert data.vocabulary == ("a", "b", "<unk>")
    assert [told(part, data) for part in (data.train, data.validation, data.test)] == [
        "a b a <unk> a b", "b <unk>", "a <unk>",
    ]  # fmt: skip


def test_one_file_is_cut_in_its_order(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("\n".join(f"w{number % 7} w{number % 3}" for number in range(100)), encoding="utf-8")
    data = load("text", file, validation=0.2)
    assert (len(data.train), len(data.validation), len(data.test)) == (216, 54, 30)
    whole = told(data.train, data), told(data.validation, data), told(data.test, data)
    expected = file.read_text().replace("\n", " <eos> ") + " <eos>"
    assert " ".join(whole) == expected
    short = load("text", file, validation=10, limit=50)
    assert (len(short.train), len(short.validation), len(short.test)) == (40, 10, 30)


def test_the_help_texts_of_python_are_always_there():
    data = load("pydoc_topics", validation=0.1)
    assert len(data.train) > 35_000 and 1_500 < data.classes < 5_000 and len(data.test) > 5_000
    known, asked = ({tuple(t.words[i : i + 10].tolist()) for i in range(len(t) - 10)} for t in (data.train, data.test))
    assert len(known & asked) < 0.01 * len(asked), "what is tested was trained on"
    again = load("pydoc_topics", validation=0.1, seed=1)
    assert torch.equal(again.train.words, data.train.words)  # nothing of a text is drawn
    common = {"the", "statement", "class", "<eos>"}
    assert common < set(data.vocabulary) and "The" not in data.vocabulary


def mine():
    return of_words("mine", {"train": list("abcabcab"), "valid": list("abc"), "test": list("ba")})


def test_a_text_of_ones_own_is_taken_as_it_is_or_as_much_of_it_as_is_wanted():
    whole, some = load("tests.data.test_text:mine"), load("tests.data.test_text:mine", limit=3)
    assert (len(whole.train), len(whole.validation), len(whole.test)) == (8, 3, 2)
    assert (len(some.train), len(some.validation), len(some.test)) == (3, 3, 2)
    assert torch.equal(some.train.words, whole.train.words[:3]) and some.vocabulary == whole.vocabulary


def test_arrays_and_back():
    data = of_words("mine", {"train": list("abcabcab"), "valid": list("ab"), "test": list("ba")})
    again = from_arrays(to_arrays(data))
    assert isinstance(again, TextData) and again.vocabulary == data.vocabulary
    assert torch.equal(again.train.words, data.train.words) and torch.equal(again.test.words, data.test.words)
    assert torch.equal(data.without_test().test.words, data.validation.words)


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("penn_treebank", {"train": "train.tokens"}, "has no ptb.train.txt, ptb.valid.txt and ptb.test.txt"),
        ("text", {"train": "train.txt"}, "has no train.txt"),
        ("text", None, "needs the folder or the file"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(tmp_path, name, files, message):
    if files is not None:
        write(tmp_path, files)
    with pytest.raises(DataError, match=message):
        load(name, None if files is None else tmp_path)


def test_what_is_no_text_is_refused():
    with pytest.raises(DataError, match="at least 2"):
        Text(torch.zeros(1, dtype=torch.int64))
    with pytest.raises(DataError, match="int64"):
        Text(torch.zeros(3))
    with pytest.raises(DataError, match="beyond the vocabulary of 2"):
        parts = [Text(torch.tensor([0, 2]))] * 3
        TextData("mine", *parts, ("a", "b"))
    with pytest.raises(DataError, match="mine: a test part of 1 words has none to predict"):
        of_words("mine", {"train": ["a"] * 10, "valid": ["a"] * 3, "test": ["<eos>"]})
    with pytest.raises(DataError, match="leaves no split"):
        of_words("mine", {"train": ["a"] * 10, "test": ["a"] * 10}, validation=0.0)
