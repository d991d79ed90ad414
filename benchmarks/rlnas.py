"""RLNAS against a public table: how well the angle ranks, with given and with random labels, and what searches find.

    python benchmarks/rlnas.py --data DATA --channels 8 --space-args '{"cells": 2}'
    python benchmarks/rlnas.py --data DATA --channels 16 --space nasbench_macro

For every seed two supernets are trained on CIFAR-10, with the given and with random labels: as many steps as the first
one makes in ``--minutes`` of one core's time. Kendall's tau-b against the table: of the angle and of MACs over all
architectures, of the angle also by two other rules for the fixed parts, which all of them share: without the BatchNorms
of these, as in the paper's code for NAS-Bench-201, and without all of these; of the accuracy on validation images, with
BatchNorm statistics recalibrated and as trained, and of its rank and the angle's combined, both alike and the accuracy
at half its weight, over ``--architectures`` random ones. Then the accuracy in the table of what each search ends with:
evolution by the angle, as in RLNAS, by accuracy, and by both combined; and how many architectures/s the angle scores,
beside a loop over the modules on every way through the network.

In one process on one core, without Ray. ``--output`` keeps supernets and figures; whoever starts again with the same
settings goes on from there. Needs cifar10/ (parquet) and the table in the data folder.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

from raynas import architecture as arch
from raynas import prepare
from raynas.config.run import Config, DataConfig, SearchConfig
from raynas.config.train import TrainConfig
from raynas.evaluation.angle import Angles
from raynas.evaluation.rank_aggregation import Reference
from raynas.evaluation.scorer import Scorer
from raynas.nn.choice import choices, decisions
from raynas.nn.space import topology
from raynas.runs.run import Run
from raynas.searchers import Evolution, EvolutionSettings
from raynas.spaces import nasbench201, nasbench_macro
from raynas.training import checkpoint
from raynas.training.trainer import Trainer, model_tensors

GENERATIONS = 20  # of the search by the angle, as in RLNAS
LABELS = ("given", "random")
COMBINED = {"accuracy and angle": 1.0, "half the accuracy and angle": 0.5}  # what the accuracy weighs
FEW = 200  # of the sample are scored without recalibration


@dataclass(frozen=True)
class Benchmark:
    """A space and its public table."""

    space: str
    file: str
    truth: str
    macs: str
    name: Callable[[Mapping[str, str]], str]
    search: EvolutionSettings
    """RLNAS's own for this space."""
    every: bool
    """Whether the table has an entry of its own for architectures that are the same network."""


BENCHMARKS = {
    "nasbench201": Benchmark(
        "spaces.nasbench201:nasbench201", "nasbench201_cifar10.parquet", "cifar10_test_200", "flops_m",
        nasbench201.to_string, EvolutionSettings(population=100, parents=30), True,
    ),
    "nasbench_macro": Benchmark(
        "spaces.nasbench_macro:nasbench_macro", "nasbench_macro.parquet", "acc_mean", "flops",
        nasbench_macro.to_string, EvolutionSettings(population=50, parents=10), False,
    ),
}  # fmt: skip


class Kept:
    """What was measured already, by seed and name, in a JSON file.

    Args:
        path: Of the file.
        settings: Of the benchmark; a file of other settings is refused.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path, self._told = path, {"settings": dict(settings), "seeds": {}}
        if path.exists():
            self._told = json.loads(path.read_text())
        if self._told["settings"] != settings:
            raise SystemExit(f"{path} was measured with {self._told['settings']}: take another --output")

    def once(self, seed: int, name: str, measure: Callable[[], Any]) -> Any:
        """Metric something, unless that is done; JSON data."""
        mine = self._told["seeds"].setdefault(str(seed), {})
        if name not in mine:
            begin = time.time()
            mine[name] = measure()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps(self._told))
            part.replace(self._path)
            print(f"seed {seed}: {name}, {time.time() - begin:.0f} s", flush=True)
        return mine[name]


def make(flags: argparse.Namespace, labels: str, seed: int) -> Run:
    """The space, the data and the recipe of one supernet; everything in it is decided by the flags."""
    config = Config(
        space=BENCHMARKS[flags.space].space,
        space_args={"channels": flags.channels} | json.loads(flags.space_args),
        data=DataConfig(name="parquet", folder=str(flags.data / "cifar10"), validation=0.1, search_size=flags.size),
        train=TrainConfig(
            labels=labels, augment="crop_flip", paths=flags.paths, lr=flags.lr, batch_size=flags.batch_size,
            label_smoothing=0.0, nesterov=True, clip=5.0,
        ),
        search=SearchConfig(
            trainable="trainables.angle:Angle", slices=1, validation_images=flags.images, bn_images=flags.bn_images,
        ),
        storage_path=str(flags.output),
        name=f"{flags.space}-{labels}-{seed}",
        seed=seed,
    )  # fmt: skip
    return prepare(config)


# Training.


def trainer_of(run: Run, space: nn.Module) -> Trainer:
    return Trainer(space, run.search_data, run.config.train, run.context.supernet.paths(), run.config.seed)


def steps_in(run: Run, minutes: float) -> int:
    """How many steps a supernet makes in so much of one core's time; found out with a copy that is thrown away."""
    trainer = trainer_of(run, copy.deepcopy(run.space))
    trainer.total_steps = 10**9
    trainer.run(5)  # the first ones fill caches
    begin, seconds = time.process_time(), 0.0
    while seconds < min(5.0, 6 * minutes):
        trainer.run(trainer.step + 5)
        seconds = time.process_time() - begin
    return max(round(60 * minutes * (trainer.step - 5) / seconds), 1)


def train(run: Run, steps: int) -> dict[str, float]:
    """Train to the end, from the newest checkpoint in the run's folder."""
    folder, trainer = run.folder / "supernet", trainer_of(run, run.space)
    trainer.total_steps = steps
    saved = checkpoint.latest(folder)
    if saved is None:
        checkpoint.keep_initial(folder, model_tensors(trainer.state()))
    else:
        trainer.load_state(saved[1], saved[0])
    begin, loss = time.process_time(), float("nan")
    while trainer.step < steps:
        loss = trainer.run(min(trainer.step + 200, steps)).loss
        checkpoint.write(folder, trainer.step, trainer.state(), {"total": steps})
    return {
        "steps": steps,
        "epochs": steps / trainer.epoch_steps,
        "loss": loss,
        "minutes": (time.process_time() - begin) / 60,
    }


def trained(run: Run) -> dict[str, Tensor]:
    """The weights of a trained supernet."""
    saved = checkpoint.latest(run.folder / "supernet")
    assert saved is not None
    return model_tensors(saved[1])


# Scores.


class Accuracy:
    """Percent of the validation images with the shared weights, each architecture once."""

    def __init__(self, run: Run, bn_images: int) -> None:
        settings = dataclasses.replace(run.config.search, bn_images=bn_images)
        run.space.load_state_dict(trained(run))
        self._scorer = Scorer(run.space, run.search_data, settings)
        self._known: dict[str, float] = {}

    def __call__(self, architectures: Sequence[arch.Architecture]) -> list[float]:
        new = [one for one in architectures if arch.key(one) not in self._known]
        for start in range(0, len(new), 10):
            chunk = new[start : start + 10]
            for one, told in zip(chunk, self._scorer.score(chunk, 0), strict=True):
                self._known[arch.key(one)] = 100 * told["correct"] / told["images"]
        return [self._known[arch.key(one)] for one in architectures]

    def knows(self, architectures: Sequence[arch.Architecture], scores: Sequence[float]) -> None:
        """These need not be scored any more."""
        self._known |= dict(zip(map(arch.key, architectures), scores, strict=True))


def evolve(run: Run, settings: EvolutionSettings, count: int, score: Callable[[arch.Architecture], float]) -> str:
    """The name of the best that evolution finds among so many."""
    searcher = Evolution(run.search_space, settings=settings, seed=run.config.seed, mode="max")
    found: dict[str, float] = {}
    name = BENCHMARKS[run.config.space.partition(":")[2]].name
    while len(found) < count:
        suggestion = searcher.suggest(str(len(found)))
        if not isinstance(suggestion, dict):
            break
        told = score(suggestion["architecture"])
        searcher.on_trial_complete(str(len(found)), {"score": told, "training_iteration": 1})
        found[name(suggestion["architecture"])] = told
    return max(found, key=lambda one: found[one])


def tau(scores: Any, truth: Any) -> float:
    """Kendall's tau-b."""
    return float(kendalltau(scores, truth).statistic)


# The angle, and the same by a loop.


def looped(run: Run, weights: Mapping[str, Tensor], architecture: Mapping[str, str]) -> Tensor:
    """The weight vector of an architecture, built module by module along every way."""
    ways: list[list[str]] = []
    edges = list(topology(run.space) or ())
    open_ends: list[tuple[int, list[str]]] = [(min(edge[0] for edge in edges), [])]
    last = max(edge[1] for edge in edges)
    while open_ends:
        node, way = open_ends.pop()
        if node == last:
            ways.append(way)
        open_ends += [(t, [*way, n]) for s, t, n in edges if s == node and n is not None and architecture[n] != "none"]
    places: dict[str, list[Any]] = {}
    for name, choice in choices(run.space):
        places.setdefault(name, []).append(choice)
    names = {id(p): n for n, p in run.space.named_parameters()}
    inside = {id(p) for _, choice in choices(run.space) for p in choice.parameters()}
    norms = {id(p) for m in run.space.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    parts = [weights[n].flatten() for p, n in names.items() if p not in inside]
    for name in (name for way in ways for name in way):
        for choice in places[name]:
            module = choice.get_submodule(architecture[name])
            own = [weights[names[id(p)]].flatten() for p in module.parameters() if id(p) not in norms]
            width = next(m.out_channels for m in reversed(list(choice.modules())) if isinstance(m, nn.Conv2d))
            if architecture[name] == "avg_pool_3x3":
                own = [torch.full((9 * width,), 1 / 9)]
            elif architecture[name] == "identity" and not own:
                own = [torch.eye(width).flatten()]
            parts += own
    return torch.cat(parts) if ways else torch.zeros(1)


def rates(run: Run, angles: Angles, everything: Sequence[arch.Architecture], loops: int = 40) -> dict[str, float]:
    """Architectures/s of the table of options and of the loop; the two must agree."""
    states = checkpoint.read_initial(run.folder / "supernet"), trained(run)
    some = Random(0).sample(list(everything), loops)
    begin = time.perf_counter()
    slow = []
    for architecture in some:
        first, second = (looped(run, state, architecture).double() for state in states)
        cosine = first @ second / (first.norm() * second.norm()).clamp_min(1e-12)
        slow.append(float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))) if len(first) > 1 else 0.0)
    loop = loops / (time.perf_counter() - begin)
    np.testing.assert_allclose(angles(some), slow, atol=1e-3)
    begin = time.perf_counter()
    fast = run.angles()
    table = time.perf_counter() - begin
    begin = time.perf_counter()
    fast(everything)
    return {"table": len(everything) / (time.perf_counter() - begin), "seconds to read the table": table, "loop": loop}


# All of it.


def other_rules(run: Run, angles: Angles) -> dict[str, Angles]:
    """The angles where less of the fixed parts counts, by name."""
    begin, now = checkpoint.read_initial(run.folder / "supernet"), trained(run)
    inside = {id(p) for _, choice in choices(run.space) for p in choice.parameters()}
    norms = {id(p) for m in run.space.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    sums = np.zeros(3)
    for name, parameter in run.space.named_parameters():
        if id(parameter) not in inside | norms:
            first, second = (state[name].double().flatten() for state in (begin, now))
            sums += [float(first @ second), float(first @ first), float(second @ second)]
    return {
        "no BatchNorms of fixed parts": dataclasses.replace(angles, fixed=sums),
        "no fixed parts": dataclasses.replace(angles, fixed=np.zeros(3)),
    }


class Measuring:
    """The figures of one seed, stage by stage."""

    def __init__(self, flags: argparse.Namespace, seed: int, rows: Mapping[str, Any], kept: Kept) -> None:
        self.flags, self.seed, self.kept = flags, seed, kept
        self.known, self.rows = BENCHMARKS[flags.space], rows
        self.runs = {labels: make(flags, labels, seed) for labels in LABELS[: 1 if flags.given_only else 2]}
        space = self.runs["given"].space
        forms = map(self.runs["given"].costs.canonical, arch.enumerate_all(decisions(space)))
        different = {arch.key(form): form for form in forms}
        self.everything = list(arch.enumerate_all(decisions(space)) if self.known.every else different.values())
        self.truth, self.macs = (
            np.array([rows[self.known.name(one)][column] for one in self.everything], float)
            for column in (self.known.truth, self.known.macs)
        )
        self.drawn = sorted(Random(seed).sample(range(len(self.everything)), flags.architectures))
        self.sample = [self.runs["given"].costs.canonical(self.everything[place]) for place in self.drawn]

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        return self.kept.once(self.seed, name, measure)

    def worth(self, name: str) -> float:
        """What the table says of an architecture."""
        return float(self.rows[name][self.known.truth])

    def __call__(self) -> dict[str, float]:
        """Everything; by name."""
        found: dict[str, float] = {}
        steps = self.kept.once(0, "steps", lambda: steps_in(self.runs["given"], self.flags.minutes))
        angles: dict[str, Angles] = {}
        for labels, run in self.runs.items():
            told = self.once(f"training, {labels} labels", lambda run=run: train(run, steps))
            found[f"epochs, {labels} labels"], found[f"loss, {labels} labels"] = told["epochs"], told["loss"]
            angles[labels] = run.angles()
        found |= self._by_angle(angles) | self._by_accuracy(angles)
        if self.seed == 0:
            told = self.once("rates", lambda: rates(self.runs["given"], angles["given"], self.everything))
            found |= {f"architectures/s, {name}": value for name, value in told.items()}
        return found

    def _by_angle(self, angles: Mapping[str, Angles]) -> dict[str, float]:
        """What needs no image: the angle and MACs."""
        found = {
            "found, the best there is": float(self.truth.max()),
            f"found, the best of {len(self.sample)}": float(self.truth[self.drawn].max()),
            "found, MACs": float(self.truth[np.argmax(self.macs)]),
            "tau, MACs": tau(self.macs, self.truth),
            "tau, MACs, the sample": tau(self.macs[self.drawn], self.truth[self.drawn]),
        }
        count = GENERATIONS * self.known.search.population
        for labels, run in self.runs.items():
            scores = angles[labels](self.everything)
            found[f"tau, angle, {labels} labels"] = tau(scores, self.truth)
            found[f"tau, angle, {labels} labels, the sample"] = tau(scores[self.drawn], self.truth[self.drawn])
            found[f"angle in the mean, {labels} labels"] = float(scores.mean())
            for rule, other in other_rules(run, angles[labels]).items():
                found[f"tau, angle, {labels} labels, {rule}"] = tau(other(self.everything), self.truth)

            def by_angle(one: arch.Architecture, angle: Angles = angles[labels]) -> float:
                return float(angle([one])[0])

            winner = self.once(
                f"search by angle, {labels} labels",
                lambda run=run, score=by_angle: evolve(run, self.known.search, count, score),
            )
            found[f"found, angle, {labels} labels"] = self.worth(winner)
        return found

    def _by_accuracy(self, angles: Mapping[str, Angles]) -> dict[str, float]:
        """What the supernet of the given labels says of validation images, alone and with the angle."""
        run, truth, found = self.runs["given"], self.truth[self.drawn], dict[str, float]()
        accuracy = Accuracy(run, self.flags.bn_images)
        scores = self.once("accuracies", lambda: accuracy(self.sample))
        accuracy.knows(self.sample, scores)
        found["tau, accuracy, the sample"] = tau(scores, truth)
        plain = self.once("accuracies, BatchNorm as trained", lambda: Accuracy(run, 0)(self.sample[:FEW]))
        found[f"tau, accuracy, BatchNorm as trained, {len(plain)} of the sample"] = tau(plain, truth[:FEW])
        searched: dict[str, Callable[[arch.Architecture], float]] = {"accuracy": lambda one: accuracy([one])[0]}
        for name, weight in COMBINED.items():
            for labels, angle in angles.items():
                sample = {"accuracy": scores, "angle": angle(self.sample)}
                reference = Reference(sample, {"accuracy": weight, "angle": 1.0})

                def both(one: arch.Architecture, reference: Reference = reference, angle: Angles = angle) -> float:
                    return reference({"accuracy": accuracy([one])[0], "angle": float(angle([one])[0])})

                found[f"tau, {name}, {labels} labels, the sample"] = tau([both(one) for one in self.sample], truth)
                if labels == "given":
                    searched[name] = both
        settings = EvolutionSettings()
        for name, score in searched.items():
            winner = self.once(
                f"search by {name}", lambda score=score: evolve(run, settings, self.flags.searched, score)
            )
            found[f"found, {name}"] = self.worth(winner)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--space", choices=BENCHMARKS, default="nasbench201")
    parser.add_argument("--minutes", type=float, default=6.0, help="of training, for each of the two supernets a seed")
    parser.add_argument("--given-only", action="store_true", help="leave out the supernet of random labels")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--paths", default="uniform", help="which paths are trained; cells: as RLNAS on NAS-Bench-201")
    parser.add_argument("--architectures", type=int, default=500, help="random ones of which the accuracy is measured")
    parser.add_argument("--searched", type=int, default=200, help="that each evolution by accuracy scores")
    parser.add_argument("--images", type=int, default=500, help="validation images that an architecture answers")
    parser.add_argument("--bn-images", type=int, default=250, help="training images that recalibrate its BatchNorms")
    parser.add_argument("--channels", type=int, default=16, help="of the stem; the tables' own have 16 and 32")
    parser.add_argument("--space-args", default="{}", help="further arguments of the space, as JSON")
    parser.add_argument("--size", type=int, default=None, help="edge length to which images are brought; default: 32")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--output", type=Path, default=Path("rlnas"), help="folder of supernets and figures")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    known = BENCHMARKS[flags.space]
    rows = {row["arch"]: row for row in pq.read_table(flags.data / known.file).to_pylist()}
    settings = {
        name: value for name, value in vars(flags).items() if name not in ("data", "output", "seeds", "given_only")
    }
    kept = Kept(flags.output / f"{flags.space}.json", settings)
    measured = [Measuring(flags, seed, rows, kept)() for seed in range(flags.seeds)]
    for name in measured[0]:
        values = [one[name] for one in measured if name in one]
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        print(f"{name:60} {np.mean(values):.3f}{spread}")
    (flags.output / f"{flags.space}-figures.json").write_text(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
