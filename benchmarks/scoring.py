"""What the whole path costs: architectures/s through searcher, Tune and actors against a bare loop, in one run.

    python benchmarks/scoring.py

The 32x32 SPOS space with 2,000 validation images, which every architecture answers. The bare loop calls the same
evaluation in as many plain processes as there are replicas (one thread each), with nothing around it; both score the
same architectures. Bare, whole, bare: the ratio is against the mean of the two bare runs. Untrained weights: what they
say does not change how long it takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import tempfile
import time
from typing import Any

import ray
import torch

from raynas import checkpoint, results
from raynas.config import Config, SearchConfig, TrainConfig
from raynas.data import Dataset, Split
from raynas.evaluation import Scorer
from raynas.launch import connect, prepare
from raynas.training import place_model
from spaces.shufflenet import spos_32


def images(count: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)

    def split(number: int) -> Split:
        inputs = torch.randint(0, 256, (number, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return Split(inputs, torch.randint(0, 10, (number,), generator=generator))

    return Dataset("noise", split(1024), split(count), split(64), 10, (0.5,) * 3, (0.25,) * 3)


def bare(share: list[dict[str, str]], settings: SearchConfig, start: Any, ended: Any) -> None:
    """One process that scores its share in a plain loop."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    scorer = Scorer(place_model(spos_32(num_classes=10), torch.device("cpu")), images(2000), settings)
    scorer.score(share[:1], 0)
    scorer._ready.clear()
    start.wait()
    begin = time.perf_counter()
    for architecture in share:
        for number in range(scorer.slices):
            scorer.score([architecture], number)
    ended.put((begin, time.perf_counter()))


def bare_rate(architectures: list[dict[str, str]], settings: SearchConfig, processes: int) -> float:
    """Architectures/s of plain processes without Ray, start-up not counted."""
    context = multiprocessing.get_context("spawn")
    start, ended = context.Barrier(processes), context.Queue()
    shares = [architectures[i::processes] for i in range(processes)]
    workers = [context.Process(target=bare, args=(share, settings, start, ended)) for share in shares]
    for worker in workers:
        worker.start()
    spans = [ended.get() for _ in workers]
    for worker in workers:
        worker.join()
    return len(architectures) / (max(end for _, end in spans) - min(begin for begin, _ in spans))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, default=60)
    parser.add_argument("--replicas", type=int, default=os.cpu_count())
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--bn-images", type=int, default=512)
    flags = parser.parse_args()
    settings = SearchConfig(
        num_samples=flags.architectures, slices=flags.slices, bn_images=flags.bn_images, scheduler="none",
        method="evolution",
        method_args={"population": 20, "parents": 5, "mutations": 10, "crossovers": 10}, replicas=flags.replicas, top=1,
    )  # fmt: skip
    config = Config(
        space="spaces.shufflenet:spos_32", search=settings, train=TrainConfig(epochs=0.01, workers=1),
        storage_path=tempfile.mkdtemp(), name="scoring",
    )  # fmt: skip
    torch.manual_seed(0)
    run = prepare(config, data=images(2000))
    # A supernet that counts as trained: its initial weights.
    state = {f"model/{name}": value for name, value in run.space.state_dict().items()}
    checkpoint.write(run.folder / "supernet", 1, state, {"total": 1})
    connect(run.config)
    run.search()
    run.close()
    rows = results.read(run.folder / "scored.parquet").to_pylist()
    complete = [row for row in rows if row["status"] == "complete"]
    architectures = [json.loads(row["architecture"]) for row in complete]
    busy = sum(row["seconds"] for row in complete)
    ray.shutdown()
    rates = [bare_rate(architectures, dataclasses.replace(settings), flags.replicas) for _ in range(2)]
    first = min(row["time"] for row in rows)
    span = (max(row["time"] for row in rows) - first).total_seconds()
    print(
        f"{len(architectures)} architectures, {flags.replicas} replicas; computing {busy / len(architectures):.2f} s each"
    )
    # The first report stands for one slice of one architecture; from there to the last the whole path is at work.
    steady = (len(rows) - 1) / flags.slices / span
    mean = sum(rates) / len(rates)
    print(f"bare loops: {rates[0]:.3f} and {rates[1]:.3f} architectures/s")
    print(f"whole path: {steady:.3f} architectures/s from the first report on, ratio {steady / mean:.3f}")
    print(f"of the replicas' time in it {100 * busy / (span * flags.replicas):.1f} % went into scoring")


if __name__ == "__main__":
    main()
