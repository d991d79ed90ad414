"""A search over several nodes with pretended GPUs; and what keeps a cluster from taking one on."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.isolated import Machine

from raynas import results

REPOSITORY = Path(__file__).parents[2]
PYTHONPATH = f"{REPOSITORY}:{REPOSITORY}/tests"
HEAD = "127.0.0.1:6379"
TINY = [
    "--space",
    "helpers.tiny:space",
    "--data",
    "helpers.tiny:arrays",
    "after=[]",
    "train.epochs=1",
    "train.batch_size=32",
]

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A head without a GPU, a node with one, one with two that has a folder `own` of its own; and a small device."""
    machine = Machine(tmp_path_factory.mktemp("nodes"))
    (machine.folder / "own").mkdir()
    (machine.home / "runs").mkdir()
    machine.run("ray", "get-auth-token", "--generate")
    start = ["ray", "start", "--disable-usage-stats", "--object-store-memory=100000000"]
    settings = {"RAY_AUTH_MODE": "token", "PYTHONPATH": PYTHONPATH, "RAY_raylet_start_wait_time_s": "120"}
    machine.run(*start, "--head", "--port=6379", "--num-cpus=1", "--include-dashboard=false", **settings)
    for number, hide in ((2, "true"), (3, f"mount -t tmpfs tmpfs {machine.folder}/own")):
        node = [
            *start,
            f"--address={HEAD}",
            f"--node-ip-address=127.0.0.{number}",
            "--num-cpus=1",
            f"--num-gpus={number - 1}",
        ]
        machine.run("unshare", "--mount", "sh", "-c", f"{hide} && {' '.join(node)} --num-cpus=1", **settings)
    device = ["--node-ip-address=127.0.0.4", "--num-cpus=0", "--num-gpus=0", "--labels=device=phone"]
    alone = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs tmpfs {machine.home}/runs && exec "$@"', "sh"]
    machine.run(*alone, *start, f"--address={HEAD}", *device, '--resources={"edge": 1}', **settings)
    yield machine
    machine.close()


def launch(machine: Machine, *words: str, fails: bool = False, **environment: str) -> str:
    """Run the command line on the head; returns what it printed."""
    settings = {"RAY_AUTH_MODE": "token", "PYTHONPATH": PYTHONPATH, "RAY_ADDRESS": HEAD} | environment
    done = machine.run("python", "-m", "raynas.launch", *TINY, *words, fails=fails, **settings)
    return done.stderr if fails else done.stdout


def test_the_search_uses_every_gpu(machine: Machine) -> None:
    launch(machine, "--storage-path", "runs", "--name", "shared", "search.num_samples=16", "search.slices=2",
           "search.bn_images=1500", "search.batch_size=4")  # fmt: skip
    folder = machine.home / "runs" / "shared"
    rows = results.read(folder / "scored.parquet").to_pylist()
    assert len({row["key"] for row in rows if row["status"] in ("complete", "stopped")}) == 16
    # Two actors of one CPU each do not fit into one node.
    *_, last = (folder / "supernet" / "training.jsonl").read_text().splitlines()
    assert {name: json.loads(last)[name] for name in ("workers", "gpus")} == {"workers": 2, "gpus": 2}
    assert {row["worker"] for row in rows} == {"supernet-0", "supernet-1"}
    assert json.loads((folder / "leaderboard.json").read_text())[0]["final_score"] > 30


def test_latency_is_measured_where_it_matters(machine: Machine) -> None:
    words = ["search.num_samples=8", "search.slices=2", "latency.samples=16", "limits.latency_ms=1000"]
    said = launch(machine, "--storage-path", "runs", "--name", "edge", "--latency-on", "edge:1", *words)
    assert "architectures are measured on edge:1" in said and "Kendall's tau" in said
    folder = machine.home / "runs" / "edge"
    measured = [json.loads(line) for line in (folder / "latency.jsonl").read_text().splitlines()[1:]]
    known = {json.dumps(each["architecture"], sort_keys=True): each["ms"] for each in measured}
    rows = results.read(folder / "scored.parquet").to_pylist()
    assert len({row["key"] for row in rows if row["status"] in ("complete", "stopped")}) == 8
    for row in rows:
        assert known[json.dumps(json.loads(row["architecture"]), sort_keys=True)] == row["latency_ms"] > 0
    winner = json.loads((folder / "leaderboard.json").read_text())[0]
    assert winner["latency_ms"] == known[json.dumps(winner["architecture"], sort_keys=True)]


PLACES = """
import ray
from raynas.costs.device import where
class Here:
    def address(self):
        return ray.util.get_node_ip_address()
ray.init(address="127.0.0.1:6379", log_to_driver=False)
for place in ("local", "edge:1", "device=phone"):
    actor = ray.remote(Here).options(**where(place)).remote()
    print(place, ray.get(actor.address.remote(), timeout=100))
    ray.kill(actor)
"""


def test_an_actor_goes_where_latency_is_to_be_measured(machine: Machine) -> None:
    said = machine.run("python", "-c", PLACES, RAY_AUTH_MODE="token", PYTHONPATH=PYTHONPATH).stdout.split()
    assert said[2:] == ["edge:1", "127.0.0.4", "device=phone", "127.0.0.4"] and said[1] != "127.0.0.4"


def test_trials_that_train_by_themselves_run_where_their_gpus_are(machine: Machine) -> None:
    scratch = ["search.trainable=trainables.from_scratch:FromScratch", "search.epochs=1", "search.num_samples=2"]
    # What Tune keeps on the head is not there to be seen on that node.
    hidden = {"TMPDIR": f"{machine.folder}/own"}
    launch(machine, "--storage-path", "runs", "--name", "scratch", "train.gpus_per_worker=2", *scratch, **hidden)
    rows = results.read(machine.home / "runs" / "scratch" / "scored.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["complete"] * 2
    assert {row["worker"].split(":")[0] for row in rows} == {"127.0.0.3"}


SEVERAL = """
import json, sys, time
from raynas.cli.main import main
for words in json.loads(sys.argv[1]):
    begin = time.monotonic()
    code = main(words)
    print(f"== {code} {time.monotonic() - begin:.0f}", file=sys.stderr)
"""


def test_what_the_cluster_lacks_is_said_in_one_line(machine: Machine) -> None:
    (machine.home / "elsewhere.py").write_text(
        "from helpers import tiny\nclass Mine(tiny.Tiny): pass\ndef space(num_classes, in_channels): return Mine()\n"
    )
    gpus = ["train.gpus_per_worker=1", "train.cpus_per_worker=1"]
    asked = [
        ["train.workers=5", *gpus],
        ["search.replicas=3", *gpus],
        ["--storage-path", f"{machine.folder}/own"],
        ["--space", "elsewhere:space"],
        ["--latency-on", "phone:1"],
        ["retrain.workers=7", "after=[retrain]", *gpus],
    ]
    lines = [[*TINY, "--storage-path", "runs", "--name", f"refused-{n}", *words] for n, words in enumerate(asked)]
    settings = {"RAY_AUTH_MODE": "token", "PYTHONPATH": f"{PYTHONPATH}:{machine.home}", "RAY_ADDRESS": HEAD}
    said = machine.run("python", "-c", SEVERAL, json.dumps(lines), folder=machine.folder, **settings).stderr
    first, second, third, fourth, fifth, sixth, _ = re.split(r"(?m)^== ", said)
    assert "error: 5 actors of 1 CPUs and 1 GPUs do not fit into the cluster" in first and "): 2 would" in first
    assert "error: 3 actors of 1 CPUs and 1 GPUs do not fit into the cluster" in second and "): 2 would" in second
    assert "error: the cluster cannot share this run: node 127.0.0.3 does not see" in third
    assert "take a storage_path that all nodes mount" in third and "127.0.0.2" not in third
    assert "cannot import elsewhere: install it there" in fourth
    assert "error: the winner could not be retrained (see retrain.workers): 7 actors of 1 CPUs and 1 GPUs" in sixth
    assert "latency.place = phone:1: no node has so much of the resource 'phone' (there are CPU, GPU, edge" in fifth
    codes = [tuple(map(int, numbers)) for numbers in re.findall(r"(?m)^== (\d+) (\d+)$", said)]
    assert [code for code, _ in codes] == [2] * 6 and max(seconds for _, seconds in codes) < 120


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RAY_AUTH_TOKEN": "another"}, f"the cluster at {HEAD} does not take this program's token: set RAY_AUTH_MODE"),
        ({"PYTHONPATH": "OLD"}, "runs Ray .* on Python .*, this program Ray 2.1.0 on Python .*: they must be the same"),
    ],
)
def test_who_may_not_join_is_told_why(machine: Machine, environment: dict[str, str], message: str) -> None:
    old = machine.folder / "old"
    old.mkdir(exist_ok=True)
    (old / "sitecustomize.py").write_text("import ray\nray.__version__ = '2.1.0'\n")
    environment = {name: value.replace("OLD", f"{old}:{PYTHONPATH}") for name, value in environment.items()}
    begin = time.monotonic()
    said = launch(machine, "--storage-path", "runs", "--name", "stranger", fails=True, **environment)
    assert re.search(f"(?m)^error: {message}" if "RAY_AUTH_TOKEN" in environment else message, said), said
    assert time.monotonic() - begin < 120 and "what was computed" not in said
    left = {path.name for path in (machine.home / "runs" / "stranger").iterdir()}
    assert left <= {"config.yaml", "data.json", "logs", ".raynas", ".lock"}, (
        "the settings come first, and nothing was computed"
    )


ASKED = """
import sys
from raynas.config.run import ConfigError
from raynas.distributed.connection import requires_token
for address in sys.argv[1:]:
    try:
        print(requires_token(address))
    except ConfigError as error:
        print(error)
"""


def test_a_head_tells_whether_it_requires_token(machine: Machine) -> None:
    """The last one here: a second head stays."""
    start = ["ray", "start", "--disable-usage-stats", "--object-store-memory=100000000", "--include-dashboard=false"]
    other = ["--head", "--port=6390", "--ray-client-server-port=9002", "--num-cpus=1"]
    machine.run(*start, *other, RAY_AUTH_MODE="disabled", PYTHONPATH=PYTHONPATH)
    free = "127.0.0.1:6390"
    for mode in ("token", "disabled"):
        asked = ["python", "-c", ASKED, HEAD, free, "127.0.0.1:10001", "127.0.0.1:9002"]
        first, second, *clients = machine.run(*asked, RAY_AUTH_MODE=mode, PYTHONPATH=PYTHONPATH).stdout.splitlines()
        assert (first, second) == ("True", "False")
        assert len(clients) == 2 and all("but it is no Ray head" in said for said in clients), clients
    doctor = ["python", "-m", "raynas.launch", "doctor", *TINY, "--storage-path", "runs", "--address", free]
    said = machine.run(*doctor, PYTHONPATH=PYTHONPATH).stdout
    assert "warn  entry: the cluster asks for no token" in said and "ok    nodes: 1 of 1" in said
    said = machine.run(*doctor, fails=True, RAY_AUTH_MODE="token", PYTHONPATH=PYTHONPATH).stdout
    assert f"fail  Ray: the cluster at {free} asks for no token, and starts no actors" in said
