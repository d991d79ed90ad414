import dataclasses

import pytest
import torch
from helpers import tiny
from torch import nn

from raynas.config.train import TrainConfig
from raynas.data.order import steps_per_epoch
from raynas.evaluation.scorer import tally
from raynas.exceptions import TrainingDiverged
from raynas.nn.choice import decisions
from raynas.nn.subnet import derive
from raynas.tasks.base import RankInfo
from raynas.training.path_sampling import FairPaths, UniformPaths
from raynas.training.trainer import Trainer
from raynas.utils.seeds import seed_of

RECIPE = TrainConfig(epochs=4, batch_size=32, weight_decay=0.1, augment="crop", precision="float32")


def make(seed=0, recipe=RECIPE, paths=UniformPaths):
    torch.manual_seed(0)
    space = tiny.space(num_classes=4)
    return Trainer(space, tiny.data(), recipe, paths(decisions(space), seed), seed)


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_options_off_the_path_do_not_move_by_a_bit():
    path = {"blocks.0": "k3", "blocks.1": "k1", "blocks.2": "skip"}
    trainer = make()
    # Once everything has momentum, so that momentum and decay could move what is off the path.
    for step in range(6):
        trainer.paths = FairPaths(decisions(trainer.model))
        trainer.run(step + 1)
    before = snapshot(trainer.model)
    trainer.paths = lambda step: [path]
    trainer.run(8)
    moved = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    on_path = ("stem.", "head.", "blocks.0.k3.", "blocks.1.k1.")
    assert moved and all(name.startswith(on_path) for name in moved), moved
    assert any(name.startswith("blocks.0.k3.0.weight") for name in moved)


def test_the_loss_falls():
    trainer = make(recipe=dataclasses.replace(RECIPE, epochs=12, weight_decay=0.0, label_smoothing=0.0, lr=0.05))
    first = trainer.run(4).loss
    trainer.run(trainer.total_steps - 8)
    assert trainer.run(trainer.total_steps).loss < 0.85 * first


def test_resumed_training_equals_training_without_a_break():
    whole = make()
    whole.run(20)
    broken = make()
    broken.run(9)
    state = broken.state()
    resumed = make()
    resumed.load_state(state, 9)
    resumed.run(20)
    for name, value in whole.state().items():
        assert torch.equal(value, resumed.state()[name]), name


def test_random_labels_are_drawn_once_uniformly_and_from_the_seed_alone():
    recipe = dataclasses.replace(RECIPE, labels="random")
    trainer, again, other = make(recipe=recipe), make(recipe=recipe), make(seed=1, recipe=recipe)
    labels = trainer.loader.targets.clone()
    assert torch.equal(labels, again.loader.targets) and not torch.equal(labels, other.loader.targets)
    counts = torch.bincount(labels, minlength=4)
    assert len(counts) == 4 and (counts - len(labels) / 4).abs().max() < 4 * (len(labels) * 3 / 16) ** 0.5
    agreeing = float((labels == tiny.data().train.targets).float().mean())
    assert 0.1 < agreeing < 0.4, "by chance it is a quarter"
    trainer.run(20)
    assert torch.equal(trainer.loader.targets, labels)
    # Of a network by itself, as in retraining, the labels are the given ones.
    alone = Trainer(nn.Flatten(), tiny.data(), recipe)
    assert torch.equal(alone.loader.targets, tiny.data().train.targets)


def test_random_labels_come_back_from_the_checkpoint():
    recipe = dataclasses.replace(RECIPE, labels="random")
    trainer = make(recipe=recipe)
    trainer.run(5)
    state = trainer.state()
    assert torch.equal(state["labels"], trainer.loader.targets)
    elsewhere = make(seed=1, recipe=recipe)
    elsewhere.load_state(state, 5)
    assert (
        torch.equal(elsewhere.loader.targets, trainer.loader.targets) and elsewhere.loader.targets.dtype == torch.int64
    )
    assert "labels" not in make().state()


def test_another_seed_trains_otherwise():
    one, two = make(seed=1), make(seed=2)
    one.run(3)
    two.run(3)
    assert not torch.equal(one.model.stem.weight, two.model.stem.weight)


def test_batchnorm_scale_and_shift_stay_in_a_supernet_unless_asked_for():
    for affine in (False, True):
        trainer = make(recipe=dataclasses.replace(RECIPE, affine=affine), paths=FairPaths)
        trainer.run(3)
        scale = trainer.model.blocks[0].k3[1].weight
        assert torch.equal(scale, torch.ones_like(scale)) is (not affine)


def test_a_plain_network_trains_all_its_parameters():
    subnet = derive(tiny.space(num_classes=4), {"blocks.0": "k3", "blocks.1": "k3", "blocks.2": "k1"})
    before = snapshot(subnet)
    Trainer(subnet, tiny.data(), RECIPE).run(2)
    still = [name for name, p in subnet.named_parameters() if torch.equal(p, before[name])]
    assert still == []


def test_decay_is_on_weights_alone():
    groups = make().optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"]) and all(p.ndim <= 1 for p in groups[1]["params"])


@pytest.mark.parametrize(("schedule", "half"), [("linear", 0.5), ("cosine", 0.5), ("constant", 1.0)])
def test_schedules(schedule, half):
    trainer = make(recipe=dataclasses.replace(RECIPE, schedule=schedule, lr=0.2))
    assert trainer._learning_rate() == pytest.approx(0.2)
    trainer.step = trainer.total_steps // 2
    assert trainer._learning_rate() == pytest.approx(0.2 * half)
    trainer.step = trainer.total_steps
    assert trainer._learning_rate() == pytest.approx(0.2 if schedule == "constant" else 0.0, abs=1e-9)


def test_the_rate_falls_in_steps():
    trainer = make(recipe=dataclasses.replace(RECIPE, schedule="step", lr=0.2, milestones=[0.25, 0.5], gamma=0.5))
    rates = []
    for step in range(trainer.total_steps):
        trainer.step = step
        rates.append(trainer._learning_rate())
    assert sorted(set(rates), reverse=True) == pytest.approx([0.2, 0.1, 0.05])
    assert rates.count(0.2) == trainer.total_steps // 4 and rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("parts", [2, 3])
def test_a_step_in_parts_is_the_same_step(parts):
    """Without BatchNorm, whose statistics are of a part, only rounding differs."""

    def trained(accumulate):
        torch.manual_seed(0)
        space = tiny.space(num_classes=4, norm=False)
        recipe = dataclasses.replace(RECIPE, accumulate=accumulate, lr=0.05)
        trainer = Trainer(space, tiny.data(), recipe, UniformPaths(decisions(space)))
        return trainer.run(8).loss, trainer.model.state_dict()

    (loss, whole), (same, cut) = trained(1), trained(parts)
    assert same == pytest.approx(loss, rel=1e-4)
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-3, atol=1e-5)


def test_warmup_rises_to_the_full_rate():
    trainer = make(recipe=dataclasses.replace(RECIPE, warmup=0.5, lr=0.2))
    rates = []
    for step in range(trainer.total_steps):
        trainer.step = step
        rates.append(trainer._learning_rate())
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top]) and top == trainer.total_steps // 2 and max(rates) == pytest.approx(0.2)


def test_a_loss_that_explodes_is_named():
    trainer = make(recipe=dataclasses.replace(RECIPE, lr=1e30, schedule="constant"))
    with pytest.raises(TrainingDiverged, match=r"between steps 0 and 10.*train\.lr"):
        trainer.run(10)


class TwoHeaded(nn.Module):
    """A network with a module that drops paths and, in training, an auxiliary classifier."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.auxiliary = nn.Conv2d(1, 4, 8), nn.Linear(4, 4), nn.Linear(4, 4)
        self.body.drop_path = 0.0

    def forward(self, x):
        x = self.body(x).flatten(1)
        return (self.head(x), self.auxiliary(x)) if self.training else self.head(x)


def test_paths_are_dropped_more_and_more_often():
    for share, rates in ((0.4, [0.0, 0.1, 0.2, 0.3]), (None, [0.0] * 4)):
        trainer = Trainer(TwoHeaded(), tiny.data(), dataclasses.replace(RECIPE, drop_path=share))
        found = []
        for quarter in range(4):
            trainer.step = quarter * trainer.total_steps // 4
            trainer.run(trainer.step + 1)
            found.append(trainer.model.body.drop_path)
        assert found == pytest.approx(rates)


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_auxiliary_classifiers_take_part_by_their_weight(weight):
    torch.manual_seed(0)
    network = TwoHeaded()
    trainer = Trainer(network, tiny.data(), dataclasses.replace(RECIPE, auxiliary=weight, label_smoothing=0.2))
    inputs, targets = trainer.loader.batch(0)
    logits, auxiliary = network(inputs)
    first, second = (nn.functional.cross_entropy(out, targets, label_smoothing=0.2) for out in (logits, auxiliary))
    torch.testing.assert_close(trainer.loader.loss((logits, auxiliary), targets), first + weight * second)
    before = network.auxiliary.weight.clone()
    trainer.optimizer.param_groups[0]["weight_decay"] = 0.0
    trainer.run(1)
    assert torch.equal(network.auxiliary.weight, before) is (weight == 0)
    assert tally(network, tiny.data().validation, tiny.data())["images"] == len(tiny.data().validation)


def test_every_image_is_seen_once_an_epoch():
    trainer = make(recipe=dataclasses.replace(RECIPE, augment="none"))
    seen = []
    for step in range(trainer.epoch_steps):
        seen += trainer.loader.order.rows(step).tolist()
    assert sorted(seen) == list(range(256))


def test_ranks_share_a_batch_without_overlap():
    whole = make(recipe=dataclasses.replace(RECIPE, augment="none"))
    labels = whole.loader.batch(0)[1].tolist()
    shares = []
    for rank in range(2):
        space = tiny.space(num_classes=4)
        recipe = dataclasses.replace(RECIPE, augment="none")
        trainer = Trainer(space, tiny.data(), recipe, UniformPaths(decisions(space)), 0, RankInfo(rank, 2))
        shares.append(trainer.loader.batch(0)[1])
    assert [label for pair in zip(*shares, strict=True) for label in map(int, pair)] == labels


def test_a_batch_is_rounded_to_what_the_ranks_can_share():
    assert Trainer(tiny.space(num_classes=4), tiny.data(), RECIPE, rank=RankInfo(0, 3)).loader.examples == 30
    with pytest.raises(ValueError, match=r"32 examples a step are too few for 40 workers: set train.batch_size to at"):
        Trainer(tiny.space(num_classes=4), tiny.data(), RECIPE, rank=RankInfo(0, 40))


def test_seeds_and_epochs():
    assert seed_of("a", 1) == seed_of("a", 1) != seed_of("a", 2)
    assert 0 <= seed_of("x") < 2**63
    assert steps_per_epoch(100, 32) == 3 and steps_per_epoch(5, 32) == 1
