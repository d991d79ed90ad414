"""The supernet on real actors: data-parallel, resumed, and with workers that die."""

import dataclasses
import math
import os
import signal
import sys
import time
from unittest.mock import Mock

import pytest
import ray
import torch
from helpers import tiny

from raynas.config.run import Config, SearchConfig
from raynas.config.train import TrainConfig
from raynas.data.dataset import to_arrays
from raynas.distributed.placement import Placement, place, place_ranks
from raynas.evaluation.scorer import Scorer
from raynas.exceptions import TrainingDiverged
from raynas.nn.choice import decisions
from raynas.supernet.actor import ActorPayload, SupernetActor
from raynas.supernet.schedule import UNLIMITED, Schedule
from raynas.supernet.supernet import Supernet
from raynas.supernet.worker import flatten_weights
from raynas.training import checkpoint
from raynas.training.path_sampling import UniformPaths
from raynas.training.trainer import Trainer, model_tensors

pytestmark = pytest.mark.usefixtures("ray_session")

CONFIG = Config(
    train=TrainConfig(epochs=4, batch_size=32, workers=1, cpus_per_worker=1, checkpoint_seconds=0.001, augment="crop"),
    search=SearchConfig(slices=4, bn_images=64, batch_size=32, replicas=2),
)


def make(folder, norm=True, **train):
    torch.manual_seed(0)
    space = tiny.space(num_classes=4, norm=norm)
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, **train))
    return Supernet(space, tiny.data(), config, folder), UniformPaths(decisions(space)), space


def weights(folder):
    return checkpoint.latest(folder)[1]


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def test_one_worker_trains_what_a_plain_loop_trains(tmp_path):
    supernet, paths, space = make(tmp_path)
    seen = []
    supernet.train(paths, seen.append)
    assert seen[-1].step == seen[-1].total == 32
    alone = Trainer(space, tiny.data(), CONFIG.train, paths)
    alone.run(32)
    for name, value in model_tensors(alone.state()).items():
        assert torch.equal(value, weights(tmp_path)[f"model/{name}"]), name


def test_two_workers_train_like_one_on_the_whole_batch(tmp_path):
    # Without BatchNorm, whose statistics are those of each worker's share, only rounding differs.
    results = []
    for workers in (1, 2):
        supernet, paths, _ = make(tmp_path / str(workers), norm=False, workers=workers, augment="none", lr=0.01)
        supernet.train(paths)
        results.append(weights(tmp_path / str(workers)))
    one, two = results
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)


def test_a_killed_worker_is_replaced_and_the_result_is_the_same(tmp_path):
    undisturbed, paths, _ = make(tmp_path / "a", workers=2, epochs=6)
    undisturbed.train(paths)

    disturbed, paths, _ = make(tmp_path / "b", workers=2, epochs=6)
    killed = []

    def kill_once(status):
        if status.step >= 10 and not killed:
            pid = ray.get(disturbed.actors[1].process.remote())
            kill(pid)
            killed.append(pid)

    disturbed.train(paths, kill_once)
    assert killed
    one, two = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_workers_that_keep_dying_end_the_training_with_a_clear_error(tmp_path):
    supernet, paths, _ = make(tmp_path, max_failures=1)

    def kill_always(status):
        kill(ray.get(supernet.actors[0].process.remote()))

    with pytest.raises(RuntimeError, match="a training worker was lost 2 times"):
        supernet.train(paths, kill_always)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_worker_without_memory_says_what_to_change(tmp_path, monkeypatch, error):
    supernet, paths, _ = make(tmp_path)

    @ray.remote
    def fail():
        raise error

    monkeypatch.setattr(Supernet, "_start", lambda supernet, paths: ray.get(fail.remote()))
    with pytest.raises(RuntimeError, match=r"^a training worker ran out of memory: lower train\.batch_size \(.+\)$"):
        supernet.train(paths)


def test_a_loss_that_explodes_keeps_the_checkpoint_before(tmp_path):
    supernet, paths, _ = make(tmp_path, lr=1e25, schedule="constant")
    with pytest.raises(TrainingDiverged, match=r"train\.lr"):
        supernet.train(paths)
    saved = checkpoint.latest(tmp_path)
    assert saved is None or all(torch.isfinite(t).all() for t in saved[1].values() if t.is_floating_point())


def test_a_loss_that_explodes_goes_on_from_the_checkpoint_with_a_lower_rate(tmp_path, caplog):
    """The first three chunks with this rate diverge; with a quarter of it they do not."""
    supernet, paths, _ = make(tmp_path)
    asked = []

    class Fails:
        """Raises as a worker does whose loss has diverged, until the rate is low enough."""

        def __init__(self, train):
            self.train = train

        def __call__(self, until, total, lr_factor=1.0):
            asked.append((until, lr_factor))
            if until > 10 and lr_factor > 0.25:
                raise TrainingDiverged("the loss became nan")
            return self.train.remote(until, total, lr_factor)

    start = supernet._start

    def starts(paths):
        steps = start(paths)
        for actor in supernet.actors:
            actor.train = Mock(remote=Fails(actor.train))
        return steps

    supernet._start = starts
    supernet.train(paths)
    assert {factor for _, factor in asked} == {1.0, 0.5, 0.25} and asked[-1] == (32, 0.25)
    lines = [record.message for record in caplog.records]
    assert [line.split("; ")[1] for line in lines if "nan" in line] == [
        f"training goes on from step {step} with {factor} times the learning rate"
        for step, factor in ((checkpoint_before(asked, 1.0), 0.5), (checkpoint_before(asked, 0.5), 0.25))
    ]
    header = checkpoint.latest_header(tmp_path, ("total",))
    assert header[1]["lr_factor"] == 0.25, "a run that goes on has the same rate"


def checkpoint_before(asked, factor):
    """The last step that was reached with a rate, or with a higher one."""
    return max(until for until, of in asked if of >= factor and until <= 10)


def test_minutes_decide_the_number_of_steps(tmp_path):
    supernet, paths, _ = make(tmp_path, minutes=0.12, epochs=1)
    seen = []
    begin = time.monotonic()
    supernet.train(paths, seen.append)
    assert seen[-1].step == seen[-1].total > 8, "no more than an epoch"
    # The start of the worker is not counted; a busy machine may take longer than planned, never without end.
    assert time.monotonic() - begin < 200


def follow(monkeypatch, pace, speeds, step=0, now=0.0):
    """Chunks of a second each, at so many steps a second; returns the step and the totals planned after each."""
    monkeypatch.setattr("raynas.supernet.schedule.time", Mock(wraps=time, monotonic=lambda: now))
    pace, totals = pace(), []
    for speed in speeds:
        if step >= pace.total:
            break
        now, step = now + 1, min(step + speed, pace.total)
        pace.reached(step)
        totals.append(pace.total)
    return step, totals


def test_a_schedule_of_minutes_follows_the_clock(monkeypatch):
    """It began slowly, because of other work, then other work came: it takes its 100 seconds all the same."""
    speeds = [1] * 10 + [10] * 60 + [5] * 100
    step, totals = follow(monkeypatch, lambda: Schedule(UNLIMITED, UNLIMITED, 0, 100), speeds)
    assert step == totals[-1] == sum(speeds[:100]) and len(totals) == 100
    for second, total in enumerate(totals, start=1):
        assert sum(speeds[:second]) / total == pytest.approx(second / 100, abs=0.01)


def test_a_schedule_of_minutes_that_goes_on_is_where_it_was(monkeypatch):
    """Half of it was made at ten steps a second; where it goes on it is slow at first."""
    pace, speeds = lambda: Schedule(UNLIMITED, 1000, 50, 50), [1] * 5 + [10] * 100
    step, totals = follow(monkeypatch, pace, speeds, step=500, now=86400.0)
    assert step == totals[-1] and len(totals) == 50
    for second, total in enumerate(totals, start=1):
        made = 500 + sum(speeds[:second])
        assert made / total == pytest.approx(0.5 + second / 100, abs=0.01)


def test_a_schedule_of_epochs_is_shortened_where_its_time_is_short_and_no_other(monkeypatch):
    assert follow(monkeypatch, lambda: Schedule(300, 300, 0, math.inf), [10] * 100) == (300, [300] * 30)
    assert follow(monkeypatch, lambda: Schedule(300, 300, 0, 60), [10] * 100) == (300, [300] * 30)
    step, totals = follow(monkeypatch, lambda: Schedule(300, 300, 0, 60), [10] * 20 + [1] * 100)
    assert step == totals[-1] == 240 and totals[19] == 300, "it became slower"
    # Its time was short, and is not any more.
    assert follow(monkeypatch, lambda: Schedule(300, 150, 20, 600), [10] * 100, step=100)[0] == 300


def test_what_was_spent_of_the_minutes_is_in_the_checkpoint(tmp_path):
    supernet, paths, _ = make(tmp_path, minutes=0.2, epochs=1, checkpoint_seconds=0.1)

    def stop(status):
        if status.step > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        supernet.train(paths, stop)
    saved = checkpoint.latest(tmp_path)
    assert saved is not None and 0 < saved[2]["seconds"] < 12 and saved[0] < saved[2]["total"] < 10**9
    supernet.train(paths)
    ended = checkpoint.latest(tmp_path)
    assert ended is not None and ended[0] == ended[2]["total"] > saved[0] and supernet.finished


def test_replicas_need_a_trained_supernet(tmp_path):
    supernet, _, _ = make(tmp_path)
    with pytest.raises(RuntimeError, match="no fully trained supernet"):
        supernet.replicas()


PATHS = [{"blocks.0": a, "blocks.1": b, "blocks.2": "k3"} for a in ("k1", "k3", "skip") for b in ("k1", "k3")]


def test_replicas_score_like_a_scorer_in_this_process_also_after_a_kill(tmp_path):
    supernet, paths, space = make(tmp_path)
    supernet.train(paths)
    pool = supernet.replicas()
    assert len(pool) == 2
    space.load_state_dict(model_tensors(weights(tmp_path)))
    expected = Scorer(space, tiny.data(), CONFIG.search).score(PATHS, 2)

    def scores(replica):
        # Many callers at once: they are answered together.
        answers = ray.get([replica.evaluate.remote([path], 2) for path in PATHS])
        return [{k: answer[0][k] for k in ("correct", "images", "loss")} for answer in answers]

    for replica in pool:
        for found, wanted in zip(scores(replica), expected, strict=True):
            assert found["correct"] == wanted["correct"] and found["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
    kill(ray.get(pool[0].process.remote()))
    again = scores(pool[0])
    assert [a["correct"] for a in again] == [w["correct"] for w in expected]
    supernet.close()


def test_one_bad_architecture_does_not_cost_the_others_their_answers():
    remote = ray.remote(SupernetActor).options(num_cpus=1, max_concurrency=8)

    hosted = ActorPayload(ray.put(tiny.space(num_classes=4)), ray.put(to_arrays(tiny.data())))
    actor = remote.remote(hosted.pack(), CONFIG, "supernet-test")
    asked = [actor.evaluate.remote([path], 0) for path in [*PATHS, {**PATHS[0], "blocks.0": "k9"}]]
    cohort = ray.get(actor.evaluate.remote([PATHS[0], {**PATHS[0], "blocks.0": "k9"}, PATHS[1]], 0))
    assert [("error" in answer, answer.get("images")) for answer in cohort] == [(False, 16), (True, None), (False, 16)]
    assert "k9" in cohort[1]["error"]
    good = ray.get(asked[:-1])
    assert all(answer[0]["images"] == 16 for answer in good)
    with pytest.raises(Exception, match="k9"):
        ray.get(asked[-1])
    ray.kill(actor)


def test_published_weights_are_copies():
    tensors = {"a": torch.arange(6, dtype=torch.int64), "b": torch.randn(2, 3), "empty": torch.zeros(0)}
    published = flatten_weights(tensors)
    back = published.tensors()
    assert all(torch.equal(back[name], value) for name, value in tensors.items())
    back["b"].zero_()
    assert torch.equal(published.tensors()["b"], tensors["b"])


def test_actors_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match=r"9 actors of 1 CPUs do not fit into the cluster .its nodes: 4 CPUs, 0 GPUs.: 4 would"
    ):
        place(9, cpus=1)
    with pytest.raises(ValueError, match=r"1 actors of .* and 1 GPUs do not fit into the cluster"):
        place(1, gpus=1)


def test_actors_for_which_others_leave_no_room_are_refused(tmp_path, monkeypatch):
    @ray.remote(num_cpus=4)
    class Other:
        def here(self):
            return True

    other = Other.remote()
    assert ray.get(other.here.remote())
    monkeypatch.setattr("raynas.distributed.placement.ROOM_SECONDS", 0.5)
    supernet, paths, _ = make(tmp_path)
    with pytest.raises(RuntimeError, match="no room for 1 actors of 1 CPUs each: others use the cluster, where 0 CPUs"):
        supernet.train(paths)
    ray.kill(other)


def test_whoever_holds_a_handle_loads_no_torch(tmp_path):
    supernet, paths, _ = make(tmp_path, epochs=1)
    supernet.train(paths)
    pool = supernet.replicas()

    @ray.remote(num_cpus=0)
    def ask(pool):
        answer = ray.get(pool[0].evaluate.remote(PATHS[:1], 0))
        return answer[0]["images"], "torch" in sys.modules

    assert ray.get(ask.remote(pool)) == (16, False)
    supernet.close()


def test_every_gpu_gets_a_rank_and_processors_are_shared_by_four(monkeypatch):
    def cluster(**resources):
        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": resources}] * 2)

    recipe = TrainConfig(batch_size=64).resolved()
    cluster(CPU=32.0, GPU=8.0)
    assert place_ranks(recipe) == Placement(16, 4.0, 1.0)
    cluster(CPU=8.0)
    assert place_ranks(recipe) == Placement(4, 4.0, 0.0)
    assert place_ranks(TrainConfig(batch_size=32).resolved()).count == 2
