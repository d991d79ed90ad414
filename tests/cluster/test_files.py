"""The files of cluster/, as far as they can be checked without a cluster; and launch.py as `ray submit` starts it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from helpers.isolated import Machine
from ray import autoscaler
from ray.autoscaler._private.providers import _get_default_config
from ray.autoscaler._private.util import prepare_config, validate_config

from raynas.cli.arguments import read_arguments
from raynas.config import loading as config_file

REPOSITORY = Path(__file__).parents[2]
CLUSTER = REPOSITORY / "cluster"
LAUNCHED = ["config.yaml", "gcp.yaml", "local.yaml"]
START = re.compile(r"\bray start\b|spot\.sh")


def read(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_knows_every_key(name: str) -> None:
    config = read(name)
    schema = json.loads(Path(autoscaler.__file__).with_name("ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(config, schema)
    validate_config(prepare_config(config))  # filled up with Ray's own defaults, as `ray up` does
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**config, "min_worker": 3}, schema)
    defaults = _get_default_config(config["provider"])
    assert set(config) <= {*defaults, "provider", "auth"}


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_ray_asks_for_a_token_and_shows_its_dashboard_to_itself_alone(name: str) -> None:
    config = read(name)
    starts = [c for kind in ("head", "worker") for c in config[f"{kind}_start_ray_commands"] if START.search(c)]
    assert len(starts) == 2
    assert all(re.search(r"RAY_AUTH_MODE=token (bash \S+/)?(ray start|spot\.sh)", c) for c in starts)
    assert [re.findall(r"--dashboard-host=(\S+)", command) for command in starts] == [["127.0.0.1"], []]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert config["file_mounts"]["~/raynas-src"] == "."
    assert any("~/raynas-src/cluster/setup.sh" in command for command in config["setup_commands"])


@pytest.mark.parametrize("name", ["config.yaml", "gcp.yaml"])
def test_clouds_start_gpu_machines_on_demand(name: str) -> None:
    config, run = read(name), config_file.load(CLUSTER / "run.yaml")
    head, gpu = (config["available_node_types"][kind] for kind in ("head", "gpu"))
    assert gpu["min_workers"] == 0 and gpu["max_workers"] == config["max_workers"] == 8
    assert "spot" in json.dumps(gpu).lower() and "spot" not in json.dumps(head).lower()
    assert run.train.workers is not None and run.train.workers <= 8
    assert run.train.gpus_per_worker == 1 and run.train.wait_minutes > 5


RAY = """#!/bin/sh
test "$FAILS" && echo no such cluster && exit 1
echo "$@" > "$NOTED"
trap 'echo told to leave >> "$NOTED"; exit 0' TERM
echo Ray runtime started.
while :; do sleep 0.05; done
"""


class Metadata(BaseHTTPRequestHandler):
    """What a machine of a cloud can ask about itself."""

    announced = False

    def do_PUT(self) -> None:
        self._answer(b"token", self.path == "/latest/api/token")

    def do_GET(self) -> None:
        if self.path == "/latest/meta-data/spot/instance-action":
            known = self.headers["X-aws-ec2-metadata-token"] == "token"
            return self._answer(b'{"action": "terminate"}', known and self.announced)
        known = (self.path, self.headers["Metadata-Flavor"]) == ("/computeMetadata/v1/instance/preempted", "Google")
        self._answer(b"TRUE" if self.announced else b"FALSE", known)

    def _answer(self, text: bytes, found: bool) -> None:
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(text if found else b"")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize("name", ["config.yaml", "gcp.yaml"])
def test_what_a_cloud_announces_is_passed_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = read(name)["worker_start_ray_commands"][-1]
    cloud = command.split("spot.sh ")[1].split()[0]
    noted = tmp_path / "noted"
    (tmp_path / "ray").write_text(RAY)
    (tmp_path / "ray").chmod(0o755)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(Metadata, "announced", False)
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTED": str(noted), "EVERY": "0.1", "FAILS": "",
        "METADATA": f"http://127.0.0.1:{server.server_port}", "LOG": str(tmp_path / "log"),
    }  # fmt: skip

    def start(**more: str) -> subprocess.CompletedProcess[str]:
        words = ["bash", CLUSTER / "spot.sh", cloud, "--address=head:6379"]
        return subprocess.run(words, env=environment | more, text=True, capture_output=True, timeout=100)

    try:
        failed = start(FAILS="1")
        assert failed.returncode == 1 and "no such cluster" in failed.stderr
        assert start().returncode == 0
        assert noted.read_text() == "start --block --address=head:6379\n"
        time.sleep(1)
        assert "told to leave" not in noted.read_text()
    finally:
        Metadata.announced = True
        deadline = time.monotonic() + 60
        while "told to leave" not in noted.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        server.shutdown()
    assert "told to leave" in noted.read_text()
    assert "the machine is taken back" in (tmp_path / "log").read_text()


def test_one_version_of_ray_everywhere() -> None:
    versions = [
        re.findall(r"(?m)^ray=(\S+)", (CLUSTER / "setup.sh").read_text()),
        re.findall(r"(?m)^ARG RAY=(\S+)", (CLUSTER / "Containerfile").read_text()),
        [read("rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"]],
    ]
    assert all(len(found) == 1 for found in versions) and len({found[0] for found in versions}) == 1
    lowest = re.search(r"ray\[[^\]]*\]>=([\d.]+)", (REPOSITORY / "pyproject.toml").read_text())
    assert lowest and [*map(int, versions[0][0].split("."))] >= [*map(int, lowest[1].split("."))]


def test_the_job_for_kubernetes_hangs_together() -> None:
    job = read("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    assert spec["authOptions"] == {"mode": "token"} and job["spec"]["shutdownAfterJobFinishes"] is True
    workers = spec["workerGroupSpecs"]
    assert all(group["minReplicas"] == 0 < group["maxReplicas"] for group in workers)
    for group in (spec["headGroupSpec"], *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert set(mounts.values()) <= set(volumes)
            assert "persistentVolumeClaim" in volumes[mounts["/shared"]], "what runs write must outlive the pods"
            assert container["resources"]["requests"] == container["resources"]["limits"]
    assert [g["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for g in workers] == [
        "1"
    ]
    python, module, name, *words = job["spec"]["entrypoint"].split()
    assert (python, module, name) == ("python", "-m", "raynas.launch")
    _, config, _ = read_arguments(words)
    assert config.storage_path.startswith("/shared/") and config.train.workers is not None
    assert config.train.workers <= sum(group["maxReplicas"] for group in workers)


def test_the_container_copies_what_is_there() -> None:
    text = (CLUSTER / "Containerfile").read_text(encoding="utf-8")
    copied = [path for line in re.findall(r"(?m)^COPY \S+ (.*)$", text) for path in line.split()[:-1]]
    assert {"pyproject.toml", "raynas", "spaces", "trainables"} <= set(copied)
    assert all((REPOSITORY / path).exists() for path in copied)


@pytest.mark.parametrize("name", ["setup.sh", "slurm.sh", "spot.sh"])
def test_bash_reads_the_scripts(name: str) -> None:
    subprocess.run(["bash", "-n", CLUSTER / name], check=True)
    assert os.access(CLUSTER / name, os.X_OK)


@pytest.mark.slow
def test_launch_runs_alone_beside_a_folder_of_its_name(tmp_path: Path) -> None:
    """`ray submit` copies the one file into the home folder, where the sources may lie in such a folder."""
    packages = tmp_path / "site-packages"
    for name in ("raynas", "spaces", "trainables"):
        shutil.copytree(REPOSITORY / name, packages / name, ignore=shutil.ignore_patterns("__pycache__"))
    home = tmp_path / "home"
    (home / "raynas").mkdir(parents=True)
    shutil.copy(REPOSITORY / "raynas" / "launch.py", home)
    shutil.copy(REPOSITORY / "pyproject.toml", home / "raynas")
    shutil.copy(REPOSITORY / "tests" / "helpers" / "tiny.py", home / "my_net.py")
    line = ["launch.py", "--space", "my_net:space", "--data", "my_net:arrays", "--dry-run"]
    settings: dict[str, Any] = {"cwd": home, "env": {**os.environ, "PYTHONPATH": str(packages)}}
    done = subprocess.run([sys.executable, *line], capture_output=True, text=True, timeout=120, **settings)
    assert done.returncode == 0, done.stderr
    assert "27 architectures" in done.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_the_script_for_slurm_starts_ray_searches_and_stops(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    try:
        tools = machine.folder / "tools"
        tools.mkdir()
        for name, text in (("scontrol", "echo 127.0.0.1"), ("srun", 'shift 2; exec "$@"')):
            (tools / name).write_text(f"#!/bin/sh\n{text}\n")
            (tools / name).chmod(0o755)
        job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "one", "SLURM_JOB_NUM_NODES": "1"}
        path = f"{tools}:{machine.environment()['PATH']}"
        words = [
            "--space",
            "helpers.tiny:space",
            "--data",
            "helpers.tiny:arrays",
            "--smoke-test",
            "after=[]",
            "--name",
            "s",
        ]
        words += ["train.workers=1", "search.replicas=1", "search.max_concurrent=1", "search.num_samples=3"]
        done = machine.run(
            CLUSTER / "slurm.sh", *words, "--storage-path", tmp_path,
            PATH=path, PYTHONPATH=f"{REPOSITORY}:{REPOSITORY}/tests", **job,
        )  # fmt: skip
        assert (tmp_path / "s" / "leaderboard.json").exists(), done.stdout + done.stderr
        assert not list((machine.home / ".ray").iterdir()), "the job's token is left behind"
        assert "raylet" not in machine.run("ps", "-A", "-o", "comm=").stdout
    finally:
        machine.close()
