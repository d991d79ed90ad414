"""Shrinking the space in training: which options go, and a training that goes on as if it had never stopped."""

import dataclasses
import itertools
import json
from random import Random

import numpy as np
import pytest
import torch
from helpers import tiny
from helpers.interrupted import train_in_two_parts
from raynas.trainables.angle import Angle

from raynas import architecture as arch
from raynas import results
from raynas.config.run import Config, SearchConfig
from raynas.config.train import ShrinkConfig, TrainConfig
from raynas.costs.counter import Costs
from raynas.evaluation.angle_statistics import AngleStatistics
from raynas.exceptions import ConfigError
from raynas.nn.choice import decisions
from raynas.runs.run import Run
from raynas.searchers import RandomSearch
from raynas.spaces import nasbench_macro
from raynas.training import checkpoint
from raynas.training.path_sampling import UniformPaths
from raynas.training.shrinking import Shrinking

SETTINGS = ShrinkConfig(every=1, drop=2, until=1, samples=200)


def turned(space, still=()):
    """The weights of a space and the same turned, those of some options excepted, which are large."""
    still = tuple(still)
    begin = {n: 10 * value if n.startswith(still) else value.clone() for n, value in space.state_dict().items()}
    generator = torch.Generator().manual_seed(2)
    now = {
        name: value + value.std() * torch.randn(value.shape, generator=generator)
        if value.ndim > 1 and not name.startswith(still)
        else value
        for name, value in begin.items()
    }
    return begin, now


def make(space, settings=SETTINGS, violation=lambda architecture: 0.0, size=8, channels=1):
    costs = Costs(space, (torch.zeros(1, channels, size, size),))
    return Shrinking(
        AngleStatistics(space, costs, False), costs, violation, lambda: UniformPaths(costs.decisions), settings, seed=0
    )


def test_every_option_is_judged_by_as_many_also_where_canonical_forms_hold_few_of_it():
    """Layers of NAS-Bench-Macro that are skipped come last in their stage: in canonical form seldom first."""
    shrinking = make(nasbench_macro.nasbench_macro(channels=2, head=4), size=32, channels=3)
    children = shrinking._children()
    for name, options in shrinking.decisions.items():
        counts = [sum(child[name] == option for child in children) for option in options]
        assert min(counts) > SETTINGS.samples * 0.75, (name, counts)


def test_options_of_the_smallest_mean_angle_go():
    space = tiny.space()
    begin, now = turned(space, still=("blocks.0.k1", "blocks.2.k3"))
    shrinking = make(space)
    gone = shrinking.drop(begin, now, 8)
    everything = list(arch.enumerate_all(decisions(space)))
    scores = shrinking.angle_statistics.angles(begin, now)(everything)
    means = {
        (name, option): np.mean([s for s, a in zip(scores, everything, strict=True) if a[name] == option])
        for name, options in decisions(space).items()
        for option in options
    }
    lowest = sorted(means, key=means.get)[:2]
    assert set(lowest) == {("blocks.0", "k1"), ("blocks.2", "k3")}
    assert [(each.decision, each.option) for each in gone] == lowest
    for each in gone:
        assert each.angle == pytest.approx(means[each.decision, each.option], rel=0.05)
    left = {name: tuple(o for o in options if (name, o) not in lowest) for name, options in decisions(space).items()}
    assert shrinking.decisions == shrinking.costs.decisions == left and shrinking.dropped == 2
    assert all(arch.canonical(left, path) for step in range(50) for path in shrinking.paths()(step))


def test_every_decision_keeps_an_option_and_rounds_end():
    space = tiny.space()
    shrinking = make(space, dataclasses.replace(SETTINGS, drop=4, until=1.5))
    sizes = []
    while np.isfinite(shrinking.next_round(8)):
        shrinking.drop(*turned(space), 8)
        sizes.append(arch.size(shrinking.decisions))
    assert sizes[-1] == 1 and sizes == sorted(sizes, reverse=True) and len(sizes) == 2
    assert all(len(options) == 1 for options in shrinking.decisions.values())


def test_rounds_come_on_their_cadence():
    shrinking = make(tiny.space(), dataclasses.replace(SETTINGS, first=3, every=0.5, drop=1))
    steps = []
    for _ in range(3):
        steps.append(shrinking.next_round(8))
        shrinking.drop(*turned(tiny.space()), 8)
    assert steps == [24, 28, 32]


def test_what_no_architecture_within_the_limits_has_goes_first_and_some_stay_within():
    space = tiny.space()

    def violation(architecture):
        return float(sum(option == "k3" for option in architecture.values()))

    shrinking = make(space, dataclasses.replace(SETTINGS, drop=3), violation)
    gone = shrinking.drop(*turned(space), 8)
    assert {(each.decision, each.option) for each in gone} == {(f"blocks.{i}", "k3") for i in range(3)}
    assert all(each.angle is None for each in gone)
    for _ in range(3):
        shrinking.drop(*turned(space), 8)
        assert any(violation(a) == 0 for a in arch.enumerate_all(shrinking.decisions))


def test_a_narrowed_space_whose_own_form_is_gone_keeps_the_architecture_as_it_is():
    space = nasbench_macro.nasbench_macro(channels=4, head=8)
    costs = Costs(space, (torch.zeros(1, 3, 8, 8),))
    moved = {"blocks.3": "identity", "blocks.4": "mb3_k3"}
    architecture = dict.fromkeys(costs.decisions, "mb6_k5") | moved
    assert costs.canonical(architecture) != architecture
    costs.narrow({**costs.decisions, "blocks.3": ("identity", "mb6_k5")})
    assert costs.canonical(architecture) == architecture
    with pytest.raises(arch.ArchitectureError, match="'mb3_k3'; legal ones: 'identity', 'mb6_k5'"):
        costs(architecture | {"blocks.3": "mb3_k3"})
    rng = Random(0)
    assert all(arch.canonical(costs.decisions, costs.sample(rng)) for _ in range(100))


# On real actors.

CONFIG = Config(
    train=TrainConfig(
        epochs=4,
        batch_size=32,
        workers=1,
        cpus_per_worker=1,
        checkpoint_seconds=1000,
        shrink=ShrinkConfig(every=1, drop=2, until=2, samples=50, anchor=3),
    ),
    search=SearchConfig(trainable="trainables.angle:Angle", num_samples=27, cohort=9, top=2),
    name="run",
)


def prepare(folder, **changes):
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, storage_path=str(folder), **changes)
    return Run(config, tiny.space(num_classes=4), tiny.data(), RandomSearch, Angle)


@pytest.mark.usefixtures("ray_session")
def test_a_shrunk_space_is_searched_and_an_interrupted_training_shrinks_the_same(tmp_path):
    whole = prepare(tmp_path / "whole")
    best = whole.search()
    folder = whole.folder / "supernet"
    step, _, values = checkpoint.latest(folder)
    kept = {name: tuple(options) for name, options in values["rounds"]["decisions"].items()}
    assert step == 32 and values["rounds"]["anchored"]
    assert kept == whole.search_space.decisions and sum(map(len, kept.values())) == 9 - 3 * 2
    assert (folder / "anchor.safetensors").exists()
    assert json.loads((folder / "rounds.json").read_text()) == values["rounds"]
    lines = values["rounds"]["rounds"]
    assert [line["step"] for line in lines] == [8, 16, 24] and lines[-1]["architectures"] == arch.size(kept)
    told = {(each["decision"], each["option"]) for line in lines for each in line["dropped"]}
    assert told == {(n, o) for n, options in decisions(whole.space).items() for o in options if o not in kept[n]}
    rows = results.read(whole.folder / "scored.parquet").to_pylist()
    proposed = {tuple(json.loads(row["architecture"]).items()) for row in rows}
    assert proposed == {tuple(zip(kept, chosen, strict=True)) for chosen in itertools.product(*kept.values())}
    assert arch.canonical(kept, best[0]["architecture"])

    again = train_in_two_parts(lambda: prepare(tmp_path / "broken"), 12, whole)
    for run in (whole, again):
        run.close()


def test_shrinking_that_would_never_begin_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"begins after 9 epochs, but train\.epochs is 4"):
        prepare(tmp_path, train=dataclasses.replace(CONFIG.train, shrink=ShrinkConfig(every=1, first=9, until=2)))
    with pytest.raises(ConfigError, match=r"27 architectures, .* lower train\.shrink\.until"):
        prepare(tmp_path, train=dataclasses.replace(CONFIG.train, shrink=ShrinkConfig(every=1)))
