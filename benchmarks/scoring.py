"""What the whole path costs: architectures/s through searcher, Tune and actors against bare loops, in one run.

    python benchmarks/spec.py

The 32x32 SPOS space with 2,000 validation images, which every architecture answers (no early stopping), after a
recalibration on 512 images. Then bare loops score the same architectures by the same evaluation, with nothing around
it: in one process with all cores, and in as many processes of one thread as there are replicas. Start-up counts in none
of them: of the whole path the time between the first and the last few completed architectures is taken, with as many
in flight at both ends. ZeroCostProxies weights: what they say does not change how long it takes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from typing import Any

import ray
import torch
from raynas.spaces.shufflenet import spos_32

from raynas import results
from raynas.config.run import Config, SearchConfig
from raynas.config.train import TrainConfig
from raynas.data.dataset import Dataset, Split
from raynas.distributed.connection import connect
from raynas.evaluation.scorer import Scorer
from raynas.runs.factory import prepare
from raynas.training import checkpoint
from raynas.training.trainer import place_model


def images(count: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)

    def split(number: int) -> Split:
        inputs = torch.randint(0, 256, (number, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return Split(inputs, torch.randint(0, 10, (number,), generator=generator))

    return Dataset("noise", split(1024), split(count), split(64), 10, (0.5,) * 3, (0.25,) * 3)


def bare(share: list[dict[str, str]], settings: SearchConfig, threads: int, start: Any, ended: Any) -> None:
    """One process that scores its share in a plain loop."""
    torch.set_num_threads(threads)
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


def bare_rate(architectures: list[dict[str, str]], settings: SearchConfig, processes: int, threads: int) -> float:
    """Architectures/s of plain processes without Ray, start-up not counted."""
    context = multiprocessing.get_context("spawn")
    start, ended = context.Barrier(processes), context.Queue()
    shares = [architectures[i::processes] for i in range(processes)]
    workers = [context.Process(target=bare, args=(share, settings, threads, start, ended)) for share in shares]
    for worker in workers:
        worker.start()
    spans = [ended.get() for _ in workers]
    for worker in workers:
        worker.join()
    return len(architectures) / (max(end for _, end in spans) - min(begin for begin, _ in spans))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, default=40)
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
    driver = time.process_time()
    run.search()
    run.close()
    driver = time.process_time() - driver
    rows = results.read(run.folder / "scored.parquet").to_pylist()
    complete = sorted((row for row in rows if row["status"] == "complete"), key=lambda row: row["time"])
    architectures = [json.loads(row["architecture"]) for row in complete]
    ray.shutdown()

    ends = 2 * flags.replicas
    middle = complete[ends:-ends]
    span = (complete[-ends - 1]["time"] - complete[ends - 1]["time"]).total_seconds()
    whole = len(middle) / span
    busy = sum(row["seconds"] for row in middle) / (span * flags.replicas)
    cores = os.cpu_count() or 1
    one = bare_rate(architectures, settings, 1, cores)
    several = bare_rate(architectures, settings, flags.replicas, 1)
    print(f"{len(architectures)} architectures, {flags.replicas} replicas of one thread")
    print(f"whole path: {whole:.3f} architectures/s")
    print(f"bare loop in one process of {cores} threads: {one:.3f} architectures/s, ratio {whole / one:.3f}")
    print(f"bare loops in {flags.replicas} processes: {several:.3f} architectures/s, ratio {whole / several:.3f}")
    print(f"replicas computed {100 * busy:.1f} % of the time; the rest is waiting for the next request")
    print(f"the driver (searcher, Tune, log) took {1000 * driver / len(architectures):.0f} ms of CPU an architecture")


if __name__ == "__main__":
    main()
