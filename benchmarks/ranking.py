"""How well a supernet ranks: NAS-Bench-Macro, trained for some minutes, against the accuracies of the public table.

    python benchmarks/ranking.py --data DATA --minutes 10
    python benchmarks/ranking.py --data DATA --minutes 40

Trains with ``--minutes`` of the machine, scores random distinct architectures with and without recalibrated BatchNorm
statistics, and prints Kendall's tau of accuracy, of (negative) loss and of MACs against the table. With ``--storage`` a
supernet that is there already is scored again without training. Needs cifar10/ (parquet) and
nasbench_macro.parquet in the data folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from raynas.spaces.nasbench_macro import to_string

from raynas import architecture as arch
from raynas.analysis.rank_correlation import compare
from raynas.config.run import Config, DataConfig, SearchConfig
from raynas.config.train import TrainConfig
from raynas.distributed.connection import connect
from raynas.runs.factory import prepare
from raynas.supernet.supernet import Supernet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--architectures", type=int, default=300)
    parser.add_argument("--images", type=int, default=1000, help="validation images that an architecture answers")
    parser.add_argument("--paths", default="fair")
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--width", type=float, default=1.0, help="of all layers of the supernet, relative to the table's"
    )
    parser.add_argument("--size", type=int, default=None, help="edge length to which images are brought; default: 32")
    parser.add_argument("--bn-images", type=int, default=2000, help="training images that recalibrate BatchNorms")
    parser.add_argument("--workers", type=int, default=None, help="that train, of a core each; default: all cores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", default=None, help="keep the run here; default: a temporary folder")
    flags = parser.parse_args()

    rows = pq.read_table(
        flags.data / "nasbench_macro.parquet", columns=["arch", "acc_mean", "flops", "params"]
    ).to_pylist()
    table = {row["arch"]: row for row in rows}
    config = Config(
        space="spaces.nasbench_macro:nasbench_macro",
        space_args={"channels": round(32 * flags.width), "head": round(1280 * flags.width)},
        data=DataConfig(name="parquet", folder=str(flags.data / "cifar10"), validation=0.1, search_size=flags.size),
        train=TrainConfig(
            minutes=flags.minutes,
            augment="crop_flip",
            paths=flags.paths,
            lr=flags.lr,
            batch_size=flags.batch_size,
            warmup=0.05,
            clip=5.0,
            workers=flags.workers,
            cpus_per_worker=None if flags.workers is None else 1,
        ),
        search=SearchConfig(slices=8, validation_images=flags.images, batch_size=250),
        storage_path=flags.storage or tempfile.mkdtemp(),
        name=f"macro-{flags.minutes:g}-{flags.paths}-{flags.width:g}-{flags.seed}",
        seed=flags.seed,
    )
    run = prepare(config)
    connect(run.config)
    begin = time.time()
    run.train_supernet()
    trained = time.time() - begin

    rng, chosen = Random(1), {}
    while len(chosen) < flags.architectures:
        architecture = run.costs.sample(rng)
        chosen[arch.key(architecture)] = architecture
    chosen = list(chosen.values())
    truth, macs, parameters = (
        [float(table[to_string(a)][column]) for a in chosen] for column in ("acc_mean", "flops", "params")
    )
    found: dict[str, object] = {"seconds of training": trained}
    for name, images in (("recalibrated BatchNorm", flags.bn_images), ("BatchNorm as trained", 0)):
        settings = dataclasses.replace(config, search=dataclasses.replace(config.search, bn_images=images))
        supernet = Supernet(run.space, run.search_data, settings, run.folder / "supernet")
        replicas = supernet.replicas()
        begin = time.time()
        asked = [
            [replicas[i % len(replicas)].evaluate.remote([a], number) for number in range(config.search.slices)]
            for i, a in enumerate(chosen)
        ]
        answers = [[answer[0] for answer in ray.get(one)] for one in asked]
        slices = [[answer["correct"] for answer in one] for one in answers]
        scores = [100 * sum(correct) / flags.images for correct in slices]
        gains = [-sum(answer["loss"] for answer in one) for one in answers]
        others = {"loss, " + name: gains, "MACs": macs, "parameters": parameters}
        ranking = compare(scores, truth, others, name="accuracy, " + name)
        for agreement in (ranking.score, *ranking.baselines):
            tau = agreement.tau
            found[f"tau, {agreement.name}"] = [tau.value, tau.low, tau.high]
            print(f"{agreement.name:36} tau {tau.value:.3f} (95 % interval {tau.low:.3f} to {tau.high:.3f})")
        span = f"accuracies {min(scores):.1f} to {max(scores):.1f}"
        print(f"{len(chosen)} architectures in {time.time() - begin:.0f} s, {span}")
        print(ranking.sentence())
        if images:
            # For benchmarks/asha.py: what every slice of the validation images said about every architecture.
            columns = {"architecture": [json.dumps(a) for a in chosen], "truth": truth, "correct": slices}
            pq.write_table(pa.table(columns), run.folder / "slices.parquet")
            print(f"answers by slice are in {run.folder / 'slices.parquet'}")
        supernet.close()
    print(json.dumps(found))
    run.close()
    ray.shutdown()


if __name__ == "__main__":
    main()
