import copy
import dataclasses

import pytest
import torch
from helpers import tiny
from torch import nn

from raynas.config.run import SearchConfig
from raynas.data.dataset import Split
from raynas.data.transforms import normalise
from raynas.evaluation.scorer import Scorer, recalibrate, tally
from raynas.exceptions import ArchitectureError
from raynas.nn.subnet import derive

PATHS = [
    {"blocks.0": "k3", "blocks.1": "k1", "blocks.2": "k3"},
    {"blocks.0": "skip", "blocks.1": "k1", "blocks.2": "k1"},
    {"blocks.0": "k3", "blocks.1": "k3", "blocks.2": "k3"},
]
SETTINGS = SearchConfig(slices=4, bn_images=96, batch_size=16)


def scorer(settings=SETTINGS):
    torch.manual_seed(0)
    return Scorer(tiny.space(num_classes=4), tiny.data(), settings)


def test_recalibration_is_the_plain_average_over_the_batches():
    torch.manual_seed(1)
    layer = nn.BatchNorm2d(3)
    layer.running_mean += 100.0  # what was there before must not matter
    batches = [torch.randn(8, 3, 4, 4) * (i + 1) + i for i in range(5)]
    recalibrate([layer], batches)
    mean = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    variance = torch.stack([b.var((0, 2, 3), unbiased=True) for b in batches]).mean(0)
    torch.testing.assert_close(layer.running_mean, mean)
    torch.testing.assert_close(layer.running_var, variance)
    assert not layer.training


def test_without_images_the_statistics_stay():
    layer = nn.BatchNorm2d(3)
    layer.running_mean += 5.0
    recalibrate([layer], [])
    assert torch.equal(layer.running_mean, torch.full((3,), 5.0)) and not layer.training


def test_dropout_is_off_while_statistics_are_gathered():
    net = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(4))
    batch = torch.randn(64, 4) + 3
    recalibrate([net], [batch])
    torch.testing.assert_close(net[1].running_mean, batch.mean(0))


def test_scoring_leaves_the_space_as_it_is():
    judge = scorer()
    before = copy.deepcopy(judge.space.state_dict())
    judge.score(PATHS, 0)
    assert all(torch.equal(value, before[name]) for name, value in judge.space.state_dict().items())
    assert judge.space.training


def test_a_score_depends_neither_on_company_nor_on_order():
    together = scorer().score(PATHS, 1)
    alone = scorer()
    assert [alone.score([path], 1)[0] for path in reversed(PATHS)][::-1] == together
    assert len({t["loss"] for t in together}) == len(PATHS)


def test_slices_cover_every_image_once():
    whole = scorer(dataclasses.replace(SETTINGS, slices=1)).score(PATHS[:1], 0)[0]
    parts = [scorer().score(PATHS[:1], number)[0] for number in range(4)]
    assert sum(p["images"] for p in parts) == whole["images"] == 64
    assert sum(p["correct"] for p in parts) == whole["correct"]
    assert sum(p["loss"] for p in parts) == pytest.approx(whole["loss"], rel=1e-4)


def test_every_slice_is_a_fair_sample_of_data_that_come_sorted_by_class():
    data = tiny.data(validation=256)
    order = data.validation.targets.argsort()
    ordered = Split(data.validation.inputs[order], data.validation.targets[order])
    judge = Scorer(tiny.space(num_classes=4), dataclasses.replace(data, validation=ordered), SETTINGS)
    assert all(len(part.unique()) == 4 for part in judge.held_out.targets.split(64))
    assert sorted(judge.held_out.targets.tolist()) == ordered.targets.tolist()


def test_a_slice_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no slice 4; legal ones: 0 to 3"):
        scorer().score(PATHS, 4)


def test_an_unknown_option_is_refused():
    with pytest.raises(ArchitectureError, match="k9"):
        scorer().score([{**PATHS[0], "blocks.0": "k9"}], 0)


def test_forgotten_subnets_are_recalibrated_to_the_same_score():
    judge = scorer()
    first = judge.score(PATHS, 0)
    judge.remembered = 1
    again = [judge.score([path], 0)[0] for path in PATHS]
    assert again == first and len(judge._ready) == 1


def test_recalibration_can_be_switched_off_and_matters():
    # Statistics of the initial space (mean 0, variance 1) are wrong for every subnet.
    with_statistics, without = scorer(), scorer(dataclasses.replace(SETTINGS, bn_images=0))
    assert with_statistics.score(PATHS, 0) != without.score(PATHS, 0)


def test_tally_counts_like_a_loop_by_hand():
    data = tiny.data()
    net = derive(tiny.space(num_classes=4), PATHS[0]).train()
    found = tally(net, data.validation, data, batch_size=10)
    assert net.training
    net.eval()
    outputs = net(normalise(data.validation.inputs, data.mean, data.std))
    assert found["correct"] == (outputs.argmax(1) == data.validation.targets).sum().item()
    assert found["images"] == 64
    assert found["loss"] == pytest.approx(
        nn.functional.cross_entropy(outputs, data.validation.targets).item() * 64, rel=1e-4
    )
