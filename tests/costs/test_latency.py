"""Latency: how it is measured, what is predicted of it, and that a limit on it holds by measurement."""

import dataclasses
import itertools
import json
import random
import time

import numpy as np
import pytest
import ray
import torch
from helpers import tiny
from scipy.stats import kendalltau
from torch import nn

from raynas import architecture as arch
from raynas.cli.doctor import check_latency
from raynas.config.loading import load, parse
from raynas.config.run import LatencyConfig
from raynas.costs.counter import Costs
from raynas.costs.device import Timing, time_network, where
from raynas.costs.latency import Latency, OptionRidge, timed
from raynas.exceptions import ConfigError
from raynas.runs.factory import prepare
from raynas.search_space.constraints import Limits
from raynas.search_space.space import SearchSpace
from raynas.searchers import Evolution, RandomSearch

DECISIONS = {f"d{number}": ("a", "b", "c") for number in range(5)}


def test_a_network_takes_as_long_as_it_takes():
    class Sleeper(nn.Module):
        runs = 0

        def forward(self, x):
            assert not self.training and not torch.is_grad_enabled()
            self.runs += 1
            time.sleep(0.5 if self.runs <= 2 else 0.002)
            return x

    network = Sleeper().train()
    timing = time_network(network, torch.zeros(1, 3), warmup=2, repeats=5)
    assert 2.0 <= timing.ms < 400 and timing.spread >= 0.0
    assert network.runs == 7 and network.training


def test_the_ridge_finds_what_adds_up():
    rng, size = random.Random(0), {option: 1.0 + number for number, option in enumerate("abc")}

    def value(form):
        return 5.0 + sum((1 + int(name[1])) * size[option] for name, option in form.items())

    everyone = list(arch.enumerate_all(DECISIONS))
    rng.shuffle(everyone)
    ridge = OptionRidge(DECISIONS, lambda form: {"macs": 7}, everyone[:60], [value(form) for form in everyone[:60]])
    assert ridge.error < 1e-3 and ridge.tau > 0.95  # of a tie either comes first
    assert max(abs(ridge(form) - value(form)) for form in everyone[60:]) < 0.02


def test_what_is_left_out_is_predicted_by_the_others():
    rng = np.random.default_rng(0)
    forms = [arch.sample(DECISIONS, random.Random(number)) for number in range(24)]
    values = rng.uniform(2, 9, len(forms))
    ridge = OptionRidge(DECISIONS, lambda form: {"macs": len(arch.key(form))}, forms, values)
    options = [(name, option) for name, legal in DECISIONS.items() for option in legal]
    rows = np.array([[*(form[name] == option for name, option in options), len(arch.key(form))] for form in forms])
    spread = rows.std(0)
    rows = (rows - rows.mean(0)) / np.where(spread > 0, spread, 1.0)
    for number in range(len(forms)):  # the same by leaving it out
        kept = [i for i in range(len(forms)) if i != number]
        x, y = rows[kept], values[kept]
        centred = x - x.mean(0)
        weights = np.linalg.solve(centred.T @ centred + ridge.penalty * np.eye(x.shape[1]), centred.T @ (y - y.mean()))
        assert ridge.left_out[number] == pytest.approx(y.mean() + (rows[number] - x.mean(0)) @ weights)


class Fake:
    """Measures by a formula, and counts."""

    def __init__(self, value, settings=None, device="fake"):
        self.value, self.device, self.asked = value, device, []
        self.settings = settings or LatencyConfig(place="local", samples=16, rounds=2)

    def name(self):
        return self.device

    def measure(self, form):
        self.asked.append(arch.key(form))
        return Timing(self.value(form), 0.1)

    def close(self):
        pass


def milliseconds(form):
    """Adds up, but for one pair, about which a sum must be wrong."""
    sizes = {"k1": 1.0, "k3": 2.0, "skip": 0.2}
    added = 1.0 + sum(map(sizes.__getitem__, form.values()))
    return added + 3.0 * (form["blocks.0"] == form["blocks.1"] == "k1")


@pytest.fixture
def costs():
    return Costs(tiny.space(), (torch.zeros(1, 1, 8, 8),))


def test_measurements_are_kept_and_used_again(costs, tmp_path):
    path, said = tmp_path / "run" / "latency.jsonl", []
    first = Latency(costs, Fake(milliseconds), path, Limits())
    assert not first.ready
    first.calibrate(0, said.append)
    assert "16 architectures are measured on local (fake)" in said[0] and "in the mean, Kendall's tau" in said[1]
    everyone = [costs.canonical(form) for form in arch.enumerate_all(costs.decisions)]
    unknown = next(form for form in everyone if arch.key(form) not in first.measured)
    predicted = first(unknown)
    first.measure(unknown)
    assert first(unknown) == milliseconds(unknown) != predicted
    with path.open("a") as file:
        file.write('{"architecture": {"blo')  # killed while it wrote

    second = Latency(costs, Fake(milliseconds), path, Limits())
    assert second.ready and second.measured == first.measured
    second.calibrate(0, said.append)
    second.measure(unknown)
    assert second.benchmark.asked == [] and len(said) == 2
    assert second.measured[arch.key(unknown)].predicted == pytest.approx(predicted)
    assert "1 proposed architectures were measured; the predictions had been off" in second.account()

    other = dataclasses.replace(second.benchmark.settings, batch=2)
    assert not Latency(costs, Fake(milliseconds, other), path, Limits()).ready
    moved = Latency(costs, Fake(milliseconds, device="another"), path, Limits())
    moved.calibrate(0, said.append)
    assert len(moved.benchmark.asked) == 2 * 16 and (tmp_path / "run" / "latency-0.jsonl").exists()
    assert json.loads(path.read_text().splitlines()[0])["device"] == "another"


@pytest.mark.parametrize("method", [RandomSearch, Evolution])
def test_a_limit_holds_by_measurement(costs, tmp_path, method):
    limits = Limits.parse({"latency_ms": 4.5, "parameters": 2000}, ("parameters", "latency_ms"))
    latency = Latency(costs, Fake(milliseconds), tmp_path / "latency.jsonl", limits)
    latency.calibrate(0, lambda text: None)
    space = timed(SearchSpace(costs.decisions, costs.canonical, costs=costs), costs, latency, limits)
    allowed = {
        arch.key(form)
        for form in map(costs.canonical, arch.enumerate_all(costs.decisions))
        if milliseconds(form) <= 4.5 and costs(form)["parameters"] <= 2000
    }
    searcher, proposed = method(space, metric="score", mode="max"), []
    for number in itertools.count():
        suggestion = searcher.suggest(str(number))
        if not isinstance(suggestion, dict):
            break
        form = suggestion["architecture"]
        assert milliseconds(form) <= 4.5 and arch.key(form) in latency.measured
        assert space.costs(form)["latency_ms"] == milliseconds(form)
        proposed.append(arch.key(form))
        searcher.on_trial_complete(str(number), {"score": float(number), "training_iteration": 1})
    # Never twice, and nothing that the limits allow is left out but for what was predicted to break them.
    assert len(set(proposed)) == len(proposed) >= 0.8 * len(allowed) and set(proposed) <= allowed


def test_what_turns_out_to_be_slow_is_never_proposed(costs, tmp_path):
    limits = Limits.parse({"latency_ms": 50.0}, ("latency_ms",))
    fake = Fake(lambda form: 1.0 + len(form))
    latency = Latency(costs, fake, tmp_path / "latency.jsonl", limits)
    latency.calibrate(0, lambda text: None)
    fake.value = lambda form: 100.0
    space = timed(SearchSpace(costs.decisions, costs.canonical), costs, latency, limits)
    searcher = RandomSearch(space)
    proposed = [searcher.suggest(str(number)) for number in range(27)]
    assert sum(isinstance(each, dict) for each in proposed) == 16  # those that were measured when it was fast


def test_what_latency_needs_is_said(no_ray, tmp_path):
    def config(*words):
        return load(
            None, [f"storage_path={tmp_path}", "space=helpers.tiny:space", "data.name=helpers.tiny:arrays", *words]
        )

    for words in (["limits.latency_ms=5"], ["search.objectives=[latency_ms]"]):
        with pytest.raises(ConfigError, match="latency_ms is measured: say where"):
            prepare(config(*words))
    with pytest.raises(ConfigError, match=r"latency.place = 'edge': value error, legal: local, a custom resource and"):
        parse({"latency": {"place": "edge"}})
    with pytest.raises(ConfigError, match=r"latency.place = 'edge:0': value error, legal: local, a custom resource"):
        parse({"latency": {"place": "edge:0"}})
    with pytest.raises(ConfigError, match=r"latency.place needs a network, but .* is bare decisions"):
        table = ["space=spaces.nasbench201:DECISIONS", "search.trainable=trainables.table:Table"]
        prepare(config(*table, "latency.place=local"))
    run = prepare(config("limits.latency_ms=5", "limits.macs=1e9", "latency.place=edge:1"))
    assert run.searcher().suggest("dry") and run.context.problem.profile().keys() == {"macs", "parameters"}


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0, "edge": 0.5}, "Labels": {}}])
    with pytest.raises(
        ConfigError, match=r"latency.place = edge:1: no node has so much of the resource 'edge' \(there"
    ):
        where("edge:1")
    with pytest.raises(ConfigError, match="no node has this label; start one with ray start --labels=device=phone"):
        where("device=phone")
    finding = check_latency("edge:1")
    assert finding.level == "fail" and "no node has so much of the resource 'edge'" in finding.found


def test_a_gpu_is_asked_for_by_its_own_name(monkeypatch):
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}, "Labels": {}}])
    monkeypatch.setattr("raynas.costs.device.check_room", lambda bundles, whose: None)
    assert where("GPU:1")["num_gpus"] == 1 and "resources" not in where("GPU:1")


def test_kendalls_tau_is_told_of_predictions(costs, tmp_path):
    latency = Latency(costs, Fake(milliseconds), tmp_path / "latency.jsonl", Limits())
    latency.calibrate(0, lambda text: None)
    asked = list(map(costs.canonical, arch.enumerate_all(costs.decisions)))
    guesses = {arch.key(form): latency(form) for form in asked if arch.key(form) not in latency.measured}
    latency._fitted = 10**9  # no new fit meanwhile
    for form in asked:
        latency.measure(form)
    true = [latency.measured[name].ms for name in guesses]
    tau = kendalltau(list(guesses.values()), true).statistic
    error = np.mean([abs(guess / ms - 1) for guess, ms in zip(guesses.values(), true, strict=True)])
    assert f"off by {100 * error:.1f} % in the mean (tau {tau:.2f})" in latency.account()
