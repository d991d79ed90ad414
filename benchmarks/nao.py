"""What NAO's learned space is worth on public tables: its account round by round, and its regret beside others'.

    python benchmarks/nao.py --data DATA                               20 seeds, 300 evaluations, one at a time
    python benchmarks/nao.py --data DATA --shuffle                     the control: scores in random order
    python benchmarks/nao.py --data DATA --searchers --settings '{"startup": 100, "retrain": 50}'
                                                                       rounds in the paper's proportions

Three tables. *Learned from 100*: a space fitted to 100 random architectures, and its predictor's accuracy on the pairs
of 2,000 others. *TrainingRounds*: what the searcher says of itself in its runs; a round is won where the mean true
score of what was generated is above that of all that was learned from; *won all*: the share of seeds in which every
round begun by 100, 200 and 300 evaluations was; *above the start*: in which every round's mean is above that of the
random architectures of the beginning. *Regret*: as in benchmarks/searchers.py. ``DATA`` holds
nasbench201_cifar10.parquet and nasbench_macro.parquet. Every round of every run is written into ``--output`` (JSON).
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from searchers import OURS, TABLES, Job, play, task
from threadpoolctl import threadpool_limits

from raynas.architecture import key, sample
from raynas.searchers.nao.diagnostics import pairwise_accuracy, summary
from raynas.searchers.nao.latent_space import LatentSpace
from raynas.searchers.nao.searcher import NAO
from raynas.searchers.nao.settings import NAOSettings

LOOKS = (50, 100, 200, 300)
WON = (101, 201, 301)
LEARNED, HELD_OUT = 100, 2000


def told(job: Job) -> dict[str, float]:
    """The scores by name, in random order where the job says so."""
    known = task(job.data, job.table).told
    if not job.shuffle:
        return known
    return dict(zip(known, Random(f"shuffle/{job.seed}").sample(list(known.values()), len(known)), strict=True))


def learn(job: Job, settings: NAOSettings) -> dict[str, Any]:
    """Fit a space to random architectures."""
    this, scores, rng = task(job.data, job.table), told(job), Random(f"learn/{job.seed}")
    forms: dict[str, dict[str, str]] = {}
    while len(forms) < LEARNED + HELD_OUT:
        form = this.space.form(sample(this.space.decisions, rng))
        forms[key(form)] = form
    every = list(forms.values())
    true = [scores[this.name(form)] for form in every]
    space = LatentSpace(this.space, settings, job.seed)
    fit = space.fit(every[:LEARNED], true[:LEARNED])
    accuracy = pairwise_accuracy(space.predict(every[LEARNED:]), true[LEARNED:])
    return {"reconstructed": fit.reconstructed, "pairwise": accuracy, "seconds": fit.seconds}


def search(job: Job, settings: NAOSettings) -> dict[str, Any]:
    """One run of NAO to its last evaluation, the optimum found or not."""
    this, scores, best = task(job.data, job.table), told(job), []
    searcher, begin = NAO(this.space, settings=settings, seed=job.seed, mode="max"), time.process_time()
    for number in range(job.evaluations):
        suggestion = searcher.suggest(f"t{number}")
        if not isinstance(suggestion, dict):
            break
        score = scores[this.name(suggestion["architecture"])]
        searcher.on_trial_complete(f"t{number}", {"score": score, "training_iteration": 1})
        best.append(max([score, *best[-1:]]))
    seconds = time.process_time() - begin
    return {"scores": best, "rounds": summary(searcher.diagnostics), "cpu_seconds": seconds}


def regret(rows: list[dict[str, Any]], aim: float, evaluations: int) -> str:
    """Mean regret at the looks."""
    looks = [look for look in LOOKS if look <= evaluations]
    means = [
        np.mean([aim - (row["scores"] + row["scores"][-1:] * evaluations)[look - 1] for row in rows]) for look in looks
    ]
    return " / ".join(f"{mean:.3f}" for mean in means)


def account(runs: list[dict[str, Any]]) -> str:
    """The cells of the table of rounds."""
    rounds = [[line for line in run["rounds"] if line["gain"] is not None] for run in runs]
    lines = [line for each in rounds for line in each]
    held = [line["pairwise"] for line in lines if line["scores"] >= LEARNED and line["pairwise"] is not None]
    ordered = [line["ordered"] for line in lines if line["ordered"] is not None]
    cells = (
        f"{np.mean([line['reconstructed'] for line in lines]):.4f}",
        f"{np.mean(held):.3f}" if held else "-",
        f"{np.mean(ordered):.3f}",
        f"{np.mean([line['gain'] for line in lines]):+.2f}",
        f"{np.mean([line['gain'] > 0 for line in lines]):.3f}",
        f"{np.mean([all(line['mean'] > each[0]['pool'] for line in each) for each in rounds]):.2f}",
        " / ".join(
            f"{np.mean([all(line['gain'] > 0 for line in each if line['scores'] < look) for each in rounds]):.2f}"
            for look in WON
        ),
        f"{np.mean([run['cpu_seconds'] for run in runs]):.0f}",
    )
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", nargs="+", default=list(TABLES[:2]), choices=TABLES)
    parser.add_argument(
        "--searchers", nargs="*", default=["random", "regularized", "predictor", "bayes"], choices=list(OURS)
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--shuffle", action="store_true", help="the table's scores in random order: nothing to learn")
    parser.add_argument("--settings", type=lambda text: NAOSettings(**json.loads(text)), default=NAOSettings())
    parser.add_argument("--output", type=Path, default=Path("nao"))
    flags = parser.parse_args()
    flags.output.mkdir(parents=True, exist_ok=True)
    aims = {table: max(task(flags.data, table).told.values()) for table in flags.tables}

    def jobs(table: str, searcher: str) -> list[Job]:
        how = {"in_flight": 1, "noise": 0.0, "rescored": 1, "shuffle": flags.shuffle}
        return [Job(flags.data, table, searcher, seed, flags.evaluations, **how) for seed in range(flags.seeds)]

    found: dict[str, list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(initializer=threadpool_limits, initargs=(1,)) as pool:
        print("| learned from 100 | exactly decoded, worst | pairwise accuracy, mean | worst | seconds |")
        print("|---|---|---|---|---|", flush=True)
        for table in flags.tables:
            fits = list(pool.map(learn, jobs(table, "nao"), itertools.repeat(flags.settings)))
            exact, pairs, took = ([fit[name] for fit in fits] for name in ("reconstructed", "pairwise", "seconds"))
            print(f"| {table} | {min(exact):.2f} | {np.mean(pairs):.3f} | {min(pairs):.3f} | {np.mean(took):.1f} |")
        print(
            "\n| rounds | decoded | held out, from 100 on | ordered | gain | won | above the start | won all | CPU s |"
        )
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        for table in flags.tables:
            found[table] = list(pool.map(search, jobs(table, "nao"), itertools.repeat(flags.settings)))
            print(f"| {table} | {account(found[table])} |", flush=True)
            (flags.output / "rounds.json").write_text(json.dumps(found))
        looks = "/".join(str(look) for look in LOOKS if look <= flags.evaluations)
        print(f"\n| table | searcher | mean regret at {looks} |\n|---|---|---|", flush=True)
        for table in flags.tables:
            print(f"| {table} | nao | {regret(found[table], aims[table], flags.evaluations)} |", flush=True)
            for name in flags.searchers:
                rows = list(pool.map(play, jobs(table, name)))
                print(f"| {table} | {name} | {regret(rows, aims[table], flags.evaluations)} |", flush=True)


if __name__ == "__main__":
    main()
