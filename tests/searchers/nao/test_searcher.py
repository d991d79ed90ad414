from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers.tiny import Tiny
from torch import nn

from raynas.architecture import Architecture, Notation, canonical, enumerate_all, key, sample
from raynas.config.run import Config, SearchConfig
from raynas.costs.counter import Costs
from raynas.runs.factory import build_searcher
from raynas.search_space.joint import joined
from raynas.search_space.sequence import SequenceEncoder
from raynas.search_space.space import SearchSpace
from raynas.searchers import RandomSearch
from raynas.searchers.nao.diagnostics import pairwise_accuracy, summary
from raynas.searchers.nao.latent_space import LatentSpace
from raynas.searchers.nao.searcher import NAO
from raynas.searchers.nao.settings import NAOSettings
from raynas.spaces import nao, nasbench201, nasbench_macro, recurrent
from raynas.testing.searcher import CHAIN, NESTED, SMALL, Player, preference

FEW = NAOSettings(steps=120, seconds=None, hidden=32, embedding=16, width=32)
SELDOM = dataclasses.replace(FEW, retrain=20)
LARGE = SearchSpace({f"block{i}": ("a", "b", "c", "d") for i in range(14)})

# A cell as NAO writes it: two nodes, each of which adds two operations on earlier nodes, in either order.
_SLOTS = [f"{node}.{side}" for node in range(2) for side in "lr"]
CELL: dict[str, tuple[str, ...]] = {}
for _slot in _SLOTS:
    CELL[f"{_slot}.from"] = ("in0", "in1", "in2")[: 2 + int(_slot[0])]
    CELL[f"{_slot}.do"] = ("conv", "pool", "skip")


def swapped(words: Any, rng: Random) -> list[str]:
    """The two inputs of one node change places."""
    at = 4 * rng.randrange(2)
    return [*words[:at], *words[at + 2 : at + 4], *words[at : at + 2], *words[at + 4 :]]


def sorted_pairs(architecture: Architecture) -> Architecture:
    words = [architecture[name] for name in CELL]
    pairs = [sorted((words[at : at + 2], words[at + 2 : at + 4])) for at in (0, 4)]
    return dict(zip(CELL, [word for node in pairs for pair in node for word in pair], strict=True))


CELLS = SearchSpace(
    CELL,
    canonical=sorted_pairs,
    notation=Notation(
        list(CELL.values()),
        lambda a: [a[name] for name in CELL],
        lambda words: dict(zip(CELL, words, strict=True)),
        swapped,
    ),
)


def draw(space: SearchSpace, count: int, seed: int = 0) -> list[Architecture]:
    rng, forms = Random(seed), {}
    while len(forms) < count:
        form = space.form(sample(space.decisions, rng))
        forms[key(form)] = form
    return list(forms.values())


@pytest.mark.parametrize("space", [CHAIN, CELLS, NESTED], ids=["chain", "cells", "nested"])
def test_learns_to_write_what_it_reads_and_to_foretell_scores(space: SearchSpace) -> None:
    forms = draw(space, 44)
    known, unknown = (forms[:40], draw(space, 400, seed=1)) if space is not NESTED else (forms[:30], forms[30:])
    learned = LatentSpace(space, FEW)
    fit = learned.fit(known, list(map(preference, known)))
    assert fit.reconstructed == 1.0
    assert fit.held_out == len(known) // 5 and fit.steps == 120
    accuracy = pairwise_accuracy(learned.predict(unknown), list(map(preference, unknown)))
    assert accuracy is not None and accuracy > 0.7
    new = learned.generate(sorted(known, key=preference)[-10:], 10, set(map(key, known)))
    assert len(new) > 3 and not {key(form) for form, _ in new} & set(map(key, known))
    assert [told for _, told in new] == sorted((told for _, told in new), reverse=True)
    assert mean(preference(form) for form, _ in new) > mean(map(preference, known))
    assert learned.predict([form for form, _ in new]) == pytest.approx([told for _, told in new], abs=1e-5)


@pytest.mark.parametrize("space", [SMALL, CELLS, NESTED, LARGE])
def test_whatever_is_decoded_is_legal(space: SearchSpace) -> None:
    """From embeddings that mean nothing, by a decoder that has learned nothing."""
    learned = LatentSpace(space, NAOSettings(steps=1, seconds=None, held_out=0.0))
    forms = draw(space, 5)
    learned.fit(forms, list(map(preference, forms)))
    assert learned.model is not None
    noise = 5 * torch.randn(300, len(learned.tokenizer.legal), 48)
    sequences = learned.model.decode(noise).tolist()
    assert len(set(map(tuple, sequences))) > 5
    for sequence in sequences:
        said = learned.tokenizer.notation.read([learned.tokenizer.words[number] for number in sequence])
        assert canonical(space.decisions, said) == said  # raises where it is not legal
        assert learned.tokenizer.read(sequence) == space.form(said)


def test_goes_the_way_on_which_the_prediction_rises_most() -> None:
    learned, forms = LatentSpace(LARGE, FEW), draw(LARGE, 30)
    learned.fit(forms, list(map(preference, forms)))
    model = learned.model
    assert model is not None
    with torch.no_grad():
        start = model.encode(torch.tensor([learned.tokenizer.write(form) for form in forms[:5]]))
    uphill = model.direction(start)
    assert torch.allclose(uphill.square().sum(-1).mean(1), torch.ones(5), atol=1e-4)
    with torch.no_grad():
        ahead, behind = (model.predict(start + sign * 1e-2 * uphill) for sign in (1, -1))
        for _ in range(20):
            other = torch.randn_like(uphill)
            other *= uphill.norm() / other.norm()
            gain = model.predict(start + 1e-2 * other) - model.predict(start - 1e-2 * other)
            assert gain.sum() < (ahead - behind).sum()
        assert (ahead > behind).all()
        # So it does in steps of the size that is made.
        steps = [0.0, *(FEW.step * FEW.growth**number for number in range(6))]
        told = [model.predict(nn.functional.normalize(start + step * uphill, dim=-1)).mean() for step in steps]
    assert told == sorted(told) and told[-1] > told[0]


def test_spellings_are_of_the_same_network_and_one_word_a_decision_without_them() -> None:
    macro = SearchSpace(nasbench_macro.DECISIONS, canonical=nasbench_macro.canonical_form)
    cells201 = SearchSpace(nasbench201.DECISIONS, alike=nasbench201.canonical_form)
    for space, merged in (
        (macro, nasbench_macro.canonical_form),
        (cells201, nasbench201.canonical_form),
        (CELLS, sorted_pairs),
    ):
        tokenizer, several = SequenceEncoder(space), 0
        for form in draw(space, 40):
            spelled = tokenizer.equivalent_sequences(form, Random(0), 6)
            assert spelled[0] == tokenizer.write(form) and len(set(map(tuple, spelled))) == len(spelled) <= 6
            read = [tokenizer.notation.read([tokenizer.words[number] for number in numbers]) for numbers in spelled]
            assert {key(merged(architecture)) for architecture in read} == {key(merged(form))}
            several += len(spelled) > 1
        assert several > 5
    chain = SequenceEncoder(CHAIN)
    assert all(len(chain.equivalent_sequences(form, Random(0), 6)) == 1 for form in draw(CHAIN, 10))
    nested = SequenceEncoder(NESTED)
    for form in enumerate_all(NESTED.decisions):
        assert nested.read(nested.write(form)) == form


def test_what_is_left_of_a_space_is_all_that_is_read() -> None:
    notation = CELLS.notation
    left = SearchSpace({**CELL, "0.l.do": ("conv", "pool")}, notation=notation)
    tokenizer = SequenceEncoder(left)
    gone = next(a for a in enumerate_all(CELL) if a["0.l.do"] == "skip")
    assert tokenizer.read(tokenizer.write(gone)) is None


def test_settings_beside_an_architecture_are_words_too() -> None:
    space = joined(CELLS, SearchConfig(joint={"train.lr": {"choice": [0.1, 1.0]}}))
    tokenizer = SequenceEncoder(space)
    for form in draw(space, 10):
        assert tokenizer.read(tokenizer.write(form)) == form and "train.lr" in form


def test_depends_on_its_seed_and_not_on_pytorch_and_leaves_that_as_it_was() -> None:
    forms = draw(CHAIN, 40)

    def learn(seed: int, threads: int) -> list[float]:
        torch.manual_seed(threads)
        torch.set_num_threads(threads)
        try:
            before = torch.get_rng_state()
            learned = LatentSpace(CHAIN, NAOSettings(steps=20, dropout=0.1), seed)
            learned.fit(forms[:30], list(map(preference, forms[:30])))
            learned.generate(forms[:5], 5)
            assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads
            return learned.predict(forms)
        finally:
            torch.set_num_threads(1)

    assert learn(0, 1) == learn(0, 2) != learn(1, 1)


def test_a_bound_in_seconds_is_kept_and_can_be_repeated() -> None:
    forms = draw(CHAIN, 30)
    scores = list(map(preference, forms))
    bound = LatentSpace(CHAIN, NAOSettings(steps=100_000, seconds=0.3))
    fit = bound.fit(forms, scores)
    assert 9 <= fit.steps < 2000 and fit.seconds < 10 and fit.bound
    again = LatentSpace(CHAIN, NAOSettings(steps=100_000, seconds=0.3))
    assert again.fit(forms, scores, fit.steps).steps == fit.steps
    assert again.predict(forms) == bound.predict(forms)


def test_a_search_rebuilt_from_its_log_and_its_journal_goes_on_the_same(tmp_path: Path) -> None:
    settings = NAOSettings(retrain=20, steps=5000, seconds=0.2, hidden=16)
    journal = tmp_path / "searcher.json"
    whole = NAO(CHAIN, settings=settings, seed=1, journal=journal)
    player = Player()
    proposed = player.play(whole, 50)
    noted = json.loads(journal.read_text())
    assert [row["scores"] for row in noted] == [20, 40] and all(row["bound"] for row in noted)
    again = NAO(CHAIN, settings=settings, seed=1, journal=journal)
    for architecture in proposed:
        again.add_evaluated_point({"architecture": architecture}, preference(architecture))
    assert Player().play(again, 10) == player.play(whole, 10)
    assert [row["scores"] for row in again.diagnostics] == [20, 40]


def test_a_restored_searcher_does_not_train_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher, restored, player = NAO(CHAIN, settings=SELDOM), NAO(CHAIN, settings=SELDOM), Player(in_flight=2)
    player.play(searcher, 25)
    searcher.save(str(tmp_path / "state"))
    restored.restore(str(tmp_path / "state"))
    monkeypatch.setattr(LatentSpace, "fit", None)
    taken, more = len(searcher.history), [searcher.suggest(f"new{i}") for i in range(10)]
    assert [restored.suggest(f"new{i}") for i in range(10)] == more
    assert len(restored.history) == taken + 10 and restored.diagnostics == searcher.diagnostics


def test_tells_what_became_of_each_round(tmp_path: Path) -> None:
    journal = tmp_path / "searcher.json"
    searcher = NAO(CHAIN, settings=SELDOM, mode="min", journal=journal)
    player = Player(lambda a: -preference(a), in_flight=3)
    player.play(searcher, 70)
    score = {key(a): -preference(a) for a in player.completed}
    rounds = searcher.diagnostics
    searcher.on_trial_complete("none of these")
    assert json.loads(journal.read_text()) == rounds
    assert [row["scores"] for row in rounds] == [20, 40, 60]
    proposed = [name for name in map(key, player.proposed) if searcher.origins[name].how == "model"]
    assert [g["key"] for row in rounds for g in row["generated"]] == proposed and len(proposed) > 40
    for row, line in zip(rounds, summary(rounds), strict=True):
        told = {g["key"]: g["score"] for g in row["generated"]}
        assert told == {name: score.get(name) for name in told}
        assert row["pool"] == pytest.approx(mean(list(score.values())[: row["scores"]]))
        assert row["reconstructed"] == 1.0 and row["held_out"] == row["scores"] // 5
        known = [value for value in told.values() if value is not None]
        assert line["generated"] == len(known) > 0
        assert line["gain"] == pytest.approx(row["pool"] - mean(known)) and line["gain"] > 0


def test_a_round_is_not_won_by_those_that_a_scheduler_let_go_on() -> None:
    """All are equally good, a score grows with fidelity, and of what is generated more go on."""
    searcher, rng = NAO(CHAIN, settings=SELDOM), Random(0)
    for number in range(60):
        trial, level = f"t{number}", rng.gauss(0.0, 1.0)
        assert isinstance(searcher.suggest(trial), dict)
        for fidelity in range(1, 6 if rng.random() < (0.25 if number < 20 else 0.75) else 2):
            result = {"score": level + 10 * fidelity, "training_iteration": fidelity}
            searcher.on_trial_result(trial, result)
        searcher.on_trial_complete(trial, result)
    first, second = summary(searcher.diagnostics)
    assert all(row["fidelity"] == 1 for row in searcher.diagnostics)
    assert abs(first["gain"]) < 1.5 and abs(second["gain"]) < 1.5
    assert abs(first["pool"] - 10) < 1 and abs(first["mean"] - 10) < 1


def test_a_journal_that_cannot_be_written_ends_no_search(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = tmp_path / "no folder" / "searcher.json"
    searcher, player = NAO(CHAIN, settings=SELDOM, journal=journal), Player()
    journal.parent.touch()
    player.play(searcher, 25)
    assert "it is tried again after the next score" in caplog.text
    journal.parent.unlink()
    searcher.on_trial_complete("none of these")
    assert json.loads(journal.read_text()) == searcher.diagnostics


@pytest.mark.parametrize("space", [nao.nao(10, 3, channels=2, cells=1), recurrent.recurrent(9, 4)], ids=["conv", "rnn"])
def test_the_papers_cells_are_written_exactly(space: nn.Module) -> None:
    inputs = torch.zeros(1, 1, dtype=torch.int64) if hasattr(space, "word") else torch.zeros(1, 3, 32, 32)
    costs = Costs(space, (inputs,))
    searched = SearchSpace(costs.decisions, costs.canonical, notation=costs.notation)
    forms = draw(searched, 30)
    learned = LatentSpace(searched, NAOSettings(seconds=None))
    fit = learned.fit(forms, list(map(preference, forms)))
    assert len(learned.tokenizer.legal) == (40 if costs.notation else 21)
    assert fit.reconstructed == 1.0
    new = learned.generate(forms[:10], 10, set(map(key, forms)))
    assert len(new) == 10 and all(canonical(costs.decisions, form) == form for form, _ in new)


def test_finds_better_ones_than_random_search() -> None:
    def best(searcher: object) -> float:
        return max(map(preference, Player().play(searcher, 50)))

    by_chance = mean(best(RandomSearch(CHAIN, seed=seed)) for seed in range(20))
    assert best(NAO(CHAIN, settings=FEW)) > by_chance + 0.12


def test_what_is_generated_is_better_only_by_the_scores() -> None:
    known = draw(CHAIN, 40)
    scores = list(map(preference, known))

    def generated(told: list[float]) -> float:
        learned = LatentSpace(CHAIN, FEW)
        learned.fit(known, told)
        best = [form for _, form in sorted(zip(told, known, strict=True), key=lambda pair: -pair[0])[:10]]
        return mean(preference(form) for form, _ in learned.generate(best, 20, set(map(key, known))))

    shuffled = [generated(Random(seed).sample(scores, len(scores))) for seed in range(3)]
    assert generated(scores) > max(shuffled) + 0.25 and mean(shuffled) < mean(scores) + 0.25


def test_the_published_anchors_on_a_table(shared_data: Path) -> None:
    """A hundred cells of NAS-Bench-201: all written exactly, three pairs in four ordered rightly."""
    rows = pq.read_table(shared_data / "nasbench201_cifar10.parquet", columns=["arch", "cifar10_test_200"]).to_pydict()
    chosen = Random(0).sample(range(len(rows["arch"])), 600)
    forms = [nasbench201.from_string(rows["arch"][place]) for place in chosen]
    scores = [rows["cifar10_test_200"][place] for place in chosen]
    learned = LatentSpace(SearchSpace(nasbench201.DECISIONS, alike=nasbench201.canonical_form))
    fit = learned.fit(forms[:100], scores[:100])
    assert fit.reconstructed == 1.0
    accuracy = pairwise_accuracy(learned.predict(forms[100:]), scores[100:])
    assert accuracy is not None and accuracy >= 0.75


def test_pairwise_accuracy_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    predicted, true = rng.integers(5, size=30), rng.integers(5, size=30)
    points = [
        0.5 if predicted[i] == predicted[j] else float((predicted[i] > predicted[j]) == (true[i] > true[j]))
        for i in range(30)
        for j in range(i)
        if true[i] != true[j]
    ]
    assert pairwise_accuracy(predicted.tolist(), true.tolist()) == pytest.approx(mean(points))
    assert pairwise_accuracy([1.0, 2.0], [3.0, 3.0]) is None


class Written(Tiny):
    """A network that says how its architectures are written."""

    def sequence_encoding(self) -> Notation:
        return Notation([("one", "two")], lambda a: ["one"], lambda words: {})


def test_a_space_may_say_how_its_architectures_are_written() -> None:
    images = (torch.zeros(1, 1, 8, 8),)
    assert Costs(Tiny(), images).notation is None
    notation = Costs(Written(), images).notation
    assert isinstance(notation, Notation) and notation.legal == [("one", "two")]


def test_is_chosen_by_its_name_and_refuses_bad_settings() -> None:
    made = build_searcher(Config(name="x", search={"method": "nao", "method_args": {"steps": 7}}))
    assert made(CHAIN).settings.steps == 7
    for name, value, legal in (
        ("steps", 0, "greater than or equal to 1"),
        ("weight", 1.5, "less than or equal to 1"),
        ("seconds", 0, "greater than 0"),
        ("growth", 1.0, "greater than 1"),
    ):
        with pytest.raises(ValueError, match=f"setting {name} = {value}: input should be {legal}"):
            NAOSettings(**{name: value})
    with pytest.raises(ValueError, match="was not trained"):
        LatentSpace(CHAIN).predict([dict.fromkeys(CHAIN.decisions, "a")])
