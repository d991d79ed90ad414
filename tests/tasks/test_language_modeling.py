"""Learning a language: rows of a text, a state that is carried, perplexity, averaged weights, resumed trainings."""

import dataclasses
import json
import math

import pytest
import ray
import torch
from raynas.spaces.recurrent import DECISIONS, canonical_form, from_sequence, recurrent
from raynas.trainables.shared_weights import SharedWeights
from torch import nn

from raynas import results
from raynas.architecture import key
from raynas.cli.main import main
from raynas.config.run import Config, LatencyConfig, RetrainConfig, SearchConfig
from raynas.config.train import TrainConfig
from raynas.costs.device import TimingActor
from raynas.data.text import Text, of_words
from raynas.evaluation.scorer import Scorer, tally
from raynas.exceptions import ConfigError
from raynas.export.formats import export
from raynas.metrics import ACCURACY, PERPLEXITY, retrained_by, scored_by
from raynas.nn.subnet import derive
from raynas.runs.run import Run
from raynas.searchers import RandomSearch
from raynas.tasks.base import RankInfo, task_of
from raynas.tasks.language_modeling import Language, TextTrainLoader, TextValidationSlices, in_rows
from raynas.training.averaging import Averaging
from raynas.training.path_sampling import UniformPaths
from raynas.training.trainer import Trainer

RECIPE = TrainConfig(preset="words", epochs=2, batch_size=4, bptt=8, lr=5.0, precision="float32")
PATH = from_sequence("0 0 " * 11)
NO_DROPOUT = dict.fromkeys(("output", "hidden", "inputs", "embedded", "words"), 0.0)
CPU = torch.device("cpu")


def data():
    """A grammar: after a vowel its own consonant, after a consonant any vowel."""
    generator = torch.Generator().manual_seed(0)

    def words(count):
        vowels = torch.randint(4, (count // 2,), generator=generator).tolist()
        return [word for vowel in vowels for word in (f"v{vowel}", f"c{vowel}")]

    return of_words("grammar", {"train": words(800), "valid": words(200), "test": words(202)})


def space(units=12, dropout=NO_DROPOUT):
    torch.manual_seed(0)
    return recurrent(data().classes, units, dropout)


def test_rows_hold_every_word_and_the_one_after_it():
    words = torch.arange(23)
    inputs, targets = in_rows(words, 4)
    assert inputs.shape == targets.shape == (4, 5)
    assert torch.equal(inputs + 1, targets) and torch.equal(inputs.flatten(), torch.arange(20))


def test_a_pass_reads_every_column_once_in_its_order_and_lengths_differ():
    loader = TextTrainLoader(Text(torch.arange(1601)), RECIPE.resolved(), 0, RankInfo(), CPU)
    assert loader.columns == 400 and loader.epoch_steps == 50 and loader.examples == 32
    for epoch in range(2):
        steps = range(epoch * 50, (epoch + 1) * 50)
        read = torch.cat([loader.batch(step)[0] for step in steps], dim=1)
        assert torch.equal(read, loader.inputs)
    spans = [[b - a for a, b in (loader.span(step) for step in range(e * 50, e * 50 + 50))] for e in range(2)]
    assert spans[0] != spans[1] and len(set(spans[0])) > 3 and min(spans[0]) >= 3
    # The learning rate of a step is in proportion to its words: over a pass the factors are one in the mean.
    assert sum(loader.lr_scale(step) for step in range(50)) == pytest.approx(50)
    assert loader.lr_scale(0) == pytest.approx(spans[0][0] / 8)


def test_ranks_share_the_rows():
    text = Text(torch.arange(401))
    whole = TextTrainLoader(text, RECIPE.resolved(), 0, RankInfo(), CPU)
    shares = [TextTrainLoader(text, RECIPE.resolved(), 0, RankInfo(rank, 2), CPU) for rank in range(2)]
    assert [loader.examples for loader in shares] == [whole.examples] * 2
    both = torch.stack([loader.batch(0)[0] for loader in shares], dim=1).flatten(0, 1)
    assert torch.equal(both, whole.batch(0)[0])
    with pytest.raises(ValueError, match="too few for 9 workers"):
        TextTrainLoader(text, RECIPE.resolved(), 0, RankInfo(0, 9), CPU)


class Remembering(nn.Module):
    """Keeps the states that it was called with."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(9))
        self.seen = []

    def forward(self, words, state=None):
        self.seen.append(state)
        return (
            self.weight.expand(*words.shape, 9),
            words[:, -1:].float() * self.weight.sum().add(1),
            words[..., None] + 0.0,
        )


def test_the_state_is_carried_through_a_pass_without_its_history():
    model = Remembering()
    loader = TextTrainLoader(Text(torch.arange(161) % 9), RECIPE.resolved(), 0, RankInfo(), CPU)
    for step in range(loader.epoch_steps + 1):
        inputs, _ = loader.batch(step)
        for _ in range(2):  # two paths of a step begin alike
            loader.forward(model, inputs)
        if step + 1 < loader.epoch_steps:
            last = inputs[:, -1:].float()
    firsts = model.seen[::2]
    assert all(a is b for a, b in zip(firsts, model.seen[1::2], strict=True))
    assert firsts[0] is None and firsts[-1] is None and all(not s.requires_grad for s in firsts[1:-1])
    torch.testing.assert_close(firsts[-2], last)


def test_the_penalty_is_on_what_changes_from_word_to_word():
    recipe = dataclasses.replace(RECIPE, slowness=0.5)
    loader = TextTrainLoader(Text(torch.arange(161) % 9), recipe.resolved(), 0, RankInfo(), CPU)
    logits, targets = torch.randn(2, 4, 9), torch.randint(9, (2, 4))
    told = torch.randn(2, 4, 3)
    plain = nn.functional.cross_entropy(logits.reshape(8, 9), targets.reshape(8))
    expected = plain + 0.5 * (told[:, 1:] - told[:, :-1]).pow(2).mean()
    torch.testing.assert_close(loader.loss((logits, told), targets), expected)
    torch.testing.assert_close(loader.loss((logits,), targets), plain)


@pytest.mark.slow
def test_a_grammar_is_learned_and_perplexity_says_so():
    model = derive(space(), PATH)
    trainer = Trainer(model, data(), dataclasses.replace(RECIPE, epochs=12))
    before = PERPLEXITY(tally(model, data().validation, data()))
    trainer.run(trainer.total_steps)
    after = tally(model, data().validation, data())
    assert after["words"] == 190 and before > 7
    # Half of the words are certain, the others one of four.
    assert 1.9 < PERPLEXITY(after) < 2.6 and task_of(data()).metric is PERPLEXITY


def test_a_measure_says_what_good_means():
    assert ACCURACY({"correct": 3, "images": 4, "loss": 1.0}) == 75 and ACCURACY.text(75) == "75.00 %"
    assert PERPLEXITY({"correct": 0, "words": 2, "loss": 2 * math.log(5)}) == pytest.approx(5)
    assert (ACCURACY.formatted(75), PERPLEXITY.formatted(56)) == ("75.00 %", "perplexity 56.00")
    assert math.isfinite(PERPLEXITY({"correct": 0, "words": 1, "loss": 1e9})) and PERPLEXITY.mode == "min"
    assert math.isnan(PERPLEXITY({"correct": 0, "words": 0, "loss": 0.0}))


def test_a_log_and_a_retraining_say_their_measure():
    told = [
        {"score": None, "metrics": None},
        {"score": 7.5, "metrics": json.dumps({"accuracy": 40.0, "perplexity": 7.5})},
    ]
    assert scored_by(told) is PERPLEXITY and scored_by(told[:1]) is None
    assert scored_by([{"score": 40.0, "metrics": told[1]["metrics"]}]) is ACCURACY
    assert retrained_by({"test_perplexity": 60.0}) is PERPLEXITY and retrained_by({}) is None


@pytest.mark.slow
def test_a_resumed_training_equals_one_that_was_not_interrupted():
    def make():
        supernet = space(dropout={"hidden": 0.3, "output": 0.3})
        return Trainer(supernet, data(), RECIPE, UniformPaths(DECISIONS, 0, canonical_form))

    whole, first = make(), make()
    stop = whole.epoch_steps // 2
    first.run(stop)
    saved = first.state()
    rest = make()
    rest.load_state(saved, stop)
    whole.run(whole.epoch_steps + 3)
    rest.run(whole.epoch_steps + 3)
    assert all(torch.equal(value, rest.state()[name]) for name, value in whole.state().items())


def test_slices_ask_about_every_word_once_and_do_not_depend_on_company():
    settings = SearchConfig(slices=3, batch_size=2)
    task, supernet = Language(data()), space()
    assert task.slices(settings) == 3
    other = from_sequence("0 1 " * 11)
    scorer = Scorer(supernet, data(), settings)
    both = [scorer.score([PATH, other], number) for number in range(3)]
    alone = [Scorer(supernet, data(), settings).score([other], number)[0] for number in range(3)]
    assert [pair[1] for pair in both] == alone
    assert sum(tally["words"] for tally in alone) == task.validation_slices(settings, CPU).inputs.numel() == 199
    few = TextValidationSlices(data().validation, SearchConfig(slices=2, validation_images=50), CPU)
    assert few.inputs.numel() == 50 and list(few.calibration()) == []


def test_averaging_begins_where_the_loss_has_ceased_to_fall():
    averaging = Averaging(patience=2)
    found = [averaging.begins(loss) for loss in (5.0, 4.0, 3.0, 3.5, 2.9, 3.2, 3.1)]
    # The sixth is above 3.0, the best of those more than two epochs before it; earlier ones are above none.
    assert found == [False, False, False, False, False, True, True]


def test_the_average_is_the_mean_of_the_weights_after_each_step():
    model = derive(space(), PATH)
    trainer = Trainer(model, data(), RECIPE)
    trainer.run(3)
    trainer.begin_average()
    kept = []
    for step in range(4, 9):
        trainer.run(step)
        kept.append(model.bias.detach().clone())
        if step == 6:
            again = Trainer(derive(space(), PATH), data(), RECIPE)
            again.load_state(trainer.state(), 6)
    trainer.take_average()
    torch.testing.assert_close(model.bias.detach(), torch.stack(kept).mean(0))
    again.run(8)
    again.take_average()
    torch.testing.assert_close(again.model.bias, model.bias)


@pytest.mark.slow
def test_a_trained_network_is_exported_word_by_word(tmp_path):
    network, example = Language(data()).export_model(derive(space(), PATH))
    report = export(network, example, tmp_path)
    assert [file.format for file in report.files] == ["safetensors", "torch_export"]
    with pytest.raises(ConfigError, match="needs a method word"):
        Language(data()).export_model(Remembering())


def test_labels_by_chance_mean_nothing_for_texts():
    with pytest.raises(ConfigError, match="for images"):
        Language(data()).check(TrainConfig(labels="random"))
    assert Config().train.preset == "auto" and Language(data()).preset == "words"


def test_presets_are_those_of_the_papers():
    ptb, shared = (TrainConfig(preset=name).resolved() for name in ("penn_treebank", "nao_words"))
    assert (ptb.lr, ptb.batch_size, ptb.clip, ptb.epochs, ptb.weight_decay) == (20, 64, 0.25, 4000, 8e-7)
    assert (ptb.momentum, ptb.schedule, ptb.average_after, ptb.bptt, ptb.slowness) == (0, "constant", 5, 35, 1e-3)
    assert (shared.lr, shared.clip, shared.batch_size, shared.average_after) == (0.25, 10, 256, None)
    assert TrainConfig(preset="wikitext2").resolved().weight_decay == 5e-7
    assert TrainConfig().resolved().momentum == 0.9


@pytest.mark.slow
def test_the_command_line_knows_texts(no_ray, capsys, tmp_path):
    words = ["data.name=pydoc_topics", "data.limit=4000", "--storage-path", str(tmp_path)]
    network = ["space=spaces.recurrent:recurrent_small", "space_args.units=8"]
    assert main(["--dry-run", *network, *words]) == 0
    told = capsys.readouterr().out
    assert "train: 3200 words" in told and "words/s" in told and "words right" in told
    for wrong, message in (
        ([*words, "space=helpers.tiny:space"], "the space does not run on words"),
        ([*network, "data.name=digits"], "the space does not run on images of shape [1, 8, 8]"),
        ([*words, *network, "search.filter.score=naswot"], "scores without training are for images"),
        ([*words, *network, "train.labels=random"], "train.labels = random is for images"),
        ([*words, *network, "train.augment=crop"], "train.augment = crop is for images; legal for texts: auto, none"),
        ([*words, *network, "train.cutout=16"], "train.cutout = 16 is for images"),
        (
            [*words, *network, "train.preset=darts"],
            "train.preset = darts is no recipe for pydoc_topics; legal there: auto, w",
        ),
        (
            [*words, *network, "retrain.preset=nao"],
            "retrain.preset = nao is no recipe for pydoc_topics; legal there: auto",
        ),
        (
            ["retrain.preset=penn_treebank"],
            "retrain.preset = penn_treebank is no recipe for digits; legal there: auto, sm",
        ),
    ):
        assert main(["--dry-run", *wrong]) == 2
        assert message in capsys.readouterr().err


def test_latency_of_a_text_is_that_of_a_word(tmp_path, ray_session):
    supernet, settings = space(), LatencyConfig(place="local", device="cpu", batch=3)
    config = Config(latency=settings, storage_path=str(tmp_path), name="run")
    latency = Run(config, supernet, data(), RandomSearch, SharedWeights).load().context.problem.latency
    assert latency is not None
    actor = TimingActor(ray.cloudpickle.dumps(ray.put(supernet)), *latency.benchmark.input_form, settings)
    assert actor.inputs.shape == (3, 1) and actor.inputs.dtype == torch.int64
    assert actor.measure(PATH).ms > 0


def test_a_search_over_texts_from_supernet_to_page(tmp_path, ray_session):
    config = Config(
        train=TrainConfig(epochs=1, batch_size=4, bptt=8, lr=5.0, workers=1, cpus_per_worker=1, average_after=1),
        search=SearchConfig(num_samples=6, slices=2, replicas=1, max_concurrent=1, top=3),
        retrain=RetrainConfig(epochs=14),
        formats=["torch_export"],
        storage_path=str(tmp_path),
        name="run",
    )
    run = Run(config, space(), data(), RandomSearch, SharedWeights)
    best = run.search()
    finals = [row["final_score"] for row in best]
    assert finals == sorted(finals) and all(1 < value < 9 for value in finals), "of perplexity low is good"
    rows = results.read(run.folder / "scored.parquet").to_pylist()
    assert len({row["key"] for row in rows}) == 6
    for row in rows:
        metrics = json.loads(row["metrics"])
        assert row["score"] == metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    first = [row for row in rows if row["fidelity"] == 1]
    leader = min(first, key=lambda row: row["score"])["key"]
    assert {row["status"] for row in rows if row["key"] == leader} == {"running", "complete"}, "ASHA stopped the best"
    assert {row["key"] for row in best} <= {row["key"] for row in rows if row["status"] == "complete"}
    result = run.retrain(PATH)
    assert result["test_perplexity"] < 4 and result["epochs"] == pytest.approx(14)
    run.export(PATH)
    words, state = torch.arange(3), torch.zeros(3, 12)
    folder = run.folder / "export" / key(run.check(PATH))
    assert json.loads((folder / "vocabulary.json").read_text()) == list(data().vocabulary)
    exported = torch.export.load(folder / "model.pt2").module()
    network = run.network(PATH)
    torch.testing.assert_close(exported(words, state), network.word(words, state))
    assert "test perplexity" in run.report().read_text(encoding="utf-8")
    run.close()
