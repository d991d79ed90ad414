"""The figures that Prometheus reads, at the endpoint where it reads them."""

import json
import re
import threading
import time
import urllib.request
from contextlib import closing, contextmanager, suppress

import pytest
import ray
from helpers import tiny
from raynas.trainables.shared_weights import SharedWeights

from raynas.config.run import Config, SearchConfig
from raynas.config.train import TrainConfig
from raynas.distributed import monitoring
from raynas.distributed.monitoring import ACTOR, SEARCH, STOPPED, TRAINING
from raynas.progress import SearchStatus
from raynas.runs.display import View
from raynas.runs.run import Run
from raynas.searchers import RandomSearch

SERVED = {f"ray_{name}" for name in (*SEARCH, *STOPPED, *TRAINING)} | {f"ray_{name}_total" for name in ACTOR}
STATUS = SearchStatus(1, 0, 3, {}, 0, 50.0, (4, 4), {}, 1.0, 1.0, 0.0)
SAMPLE = re.compile(r"(\w+)\{(.*)\} (\S+)$")


class Spy(View):
    """Keeps what a person is told of the search: the same must be measured."""

    def __init__(self):
        super().__init__()
        self.told = []

    @contextmanager
    def search(self):
        yield self.told.append


def served(run):
    """What the metrics agents of all nodes serve about a run: by name and by its further tags."""
    found = {}
    for node in ray.nodes():
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(address, timeout=10) as page:
            lines = page.read().decode().splitlines()
        for name, tags, value in (match.groups() for line in lines if (match := SAMPLE.match(line))):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', tags))
            if labels.get("run") == run:
                further = tuple(labels[tag] for tag in ("rung", "what", "actor") if tag in labels)
                found[(name, *further)] = float(value)
    return found


@contextmanager
def polled(run):
    """What was served last under each name, as Prometheus keeps it: a gauge is gone when its phase is over."""
    found, done = {}, threading.Event()

    def poll():
        while not done.wait(2.0):
            with suppress(OSError):  # a busy agent may answer late: so does Prometheus miss a scrape
                found.update(served(run))

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def ended(found):
    return found["ray_raynas_scored",] == 12.0 and found["ray_raynas_training_step", "supernet"] == 16.0


def test_the_figures_of_a_run_stand_at_the_endpoint_without_a_dashboard(ray_session, tmp_path):
    search = SearchConfig(num_samples=12, slices=4, bn_images=64, batch_size=32, replicas=1, max_concurrent=2)
    train = TrainConfig(epochs=2, batch_size=32, workers=1, cpus_per_worker=1)
    config = Config(train=train, search=search, storage_path=str(tmp_path), name=f"größe-{time.time_ns()}")
    view = Spy()
    run = Run(config, tiny.space(num_classes=4), tiny.data(), RandomSearch, SharedWeights, view)
    shown = config.name.encode("ascii", "backslashreplace").decode().replace("\\", "\\\\")  # as Prometheus escapes it
    with closing(run), polled(shown) as found:
        run.search()
        last = view.told[-1]
        deadline = time.monotonic() + 150
        # Every answer of the replica is counted, one for each fidelity that was reached; it tells them in its own time.
        reached = sum(rung * count for rung, count in last.stopped_at.items()) + 4 * (12 - last.stopped)
        answers = "ray_raynas_actor_scores_total", "supernet-0"
        while time.monotonic() < deadline and not (
            {key[0] for key in found} >= SERVED and ended(found) and found[answers] == reached
        ):
            time.sleep(1.0)
    wanted = {("ray_raynas_scored",): 12.0, ("ray_raynas_wanted",): 12.0, ("ray_raynas_best_score",): last.best}
    wanted |= {("ray_raynas_stopped", str(rung)): float(count) for rung, count in last.stopped_at.items()}
    wanted |= {("ray_raynas_overhead",): last.overhead, ("ray_raynas_failed",): 0.0}
    assert {key[0] for key in found} >= SERVED
    assert {key: found.get(key) for key in wanted} == pytest.approx(wanted)
    assert last.stopped_at and last.stopped == sum(last.stopped_at.values())
    steps = 2 * (256 // 32)
    assert found["ray_raynas_training_step", "supernet"] == found["ray_raynas_training_steps", "supernet"] == steps
    assert found["ray_raynas_actor_images_total", "supernet-train-0"] == steps * 32
    assert found[answers] == reached
    assert 0 < found["ray_raynas_actor_busy_seconds_total", "supernet-0"] <= last.seconds * (1 - last.overhead) * 1.1


class Refusing:
    """A metric that Ray does not take."""

    def set(self, value, tags):
        raise RuntimeError("no agent")

    inc = set


def test_metrics_never_end_a_run(monkeypatch, caplog):
    monkeypatch.setattr(monitoring, "Gauge", lambda *arguments: Refusing())
    monkeypatch.setattr(monitoring, "Counter", lambda *arguments: Refusing())
    shown = []
    with monitoring.RunMetrics("run").search(shown.append) as told:
        told(STATUS)
        told(STATUS)
    monitoring.ActorMetrics("run", "actor").worked(1.0, 1)
    assert shown == [STATUS, STATUS]
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == 2 * ["no more metrics of this process: RuntimeError: no agent"]


def test_the_board_asks_for_figures_that_are_served(repository):
    board = json.loads((repository / "cluster" / "grafana.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    names = {name for text in asked for name in re.findall(r"\bray_raynas_\w+", text)}
    assert names == SERVED, "the board shows other figures than there are"
    assert all('run=~"$run"' in text for text in asked)
    places = [tuple(panel["gridPos"][side] for side in "xywh") for panel in board["panels"]]
    assert all(x + w <= 24 for x, _, w, _ in places)
    cells = [(a, b) for x, y, w, h in places for a in range(x, x + w) for b in range(y, y + h)]
    assert len(cells) == len(set(cells)), "panels lie over each other"
