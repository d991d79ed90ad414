"""cluster/local.yaml as it is used: `ray up` onto two machines by SSH, `ray submit`, `ray exec`, a job, `ray down`.

Both machines are this one, at two addresses of its loopback.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helpers.isolated import Machine, install

from raynas import results

SEARCH = ["--space", "my_net:space", "--data", "my_net:arrays", "after=[report]"]
SEARCH += [
    "train.epochs=1",
    "train.cpus_per_worker=1",
    "search.num_samples=6",
    "search.slices=2",
    "search.max_concurrent=2",
    "search.bn_images=64",
]
BOTH = ["train.workers=2", "search.replicas=2", "train.wait_minutes=2"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if shutil.which("rsync") is None or not Path("/usr/sbin/sshd").exists():
        install("openssh-server", "rsync")
    machine = Machine(tmp_path_factory.mktemp("launcher"))
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def source(machine: Machine) -> Path:
    """RayNAS as a user has it, with local.yaml filled in."""
    here, source = Path(__file__).parents[2], machine.folder / "source"
    for name in ("raynas", "spaces", "trainables", "cluster"):
        shutil.copytree(here / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(here / name, source)
    shutil.copy(here / "tests" / "helpers" / "tiny.py", source / "my_net.py")
    setup = source / "cluster" / "setup.sh"
    text, changed = re.subn(r"(?m)^ray=\S+", f"ray={importlib.metadata.version('ray')}", setup.read_text())
    assert changed == 1
    setup.write_text(text)
    config = yaml.safe_load((source / "cluster" / "local.yaml").read_text())
    config["provider"].update(head_ip="127.0.0.1", worker_ips=["127.0.0.2"])
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(machine.folder / "key")}
    config["file_mounts"]["~/my_net.py"] = "my_net.py"
    head, worker = config["head_start_ray_commands"], config["worker_start_ray_commands"]
    head[-1] += " --num-cpus=1"
    # Here `ray stop` would end the head, too, and both would keep the code of a job in the same place.
    start = f"{worker[-1]} --node-ip-address=127.0.0.2 --num-cpus=1"
    config["worker_start_ray_commands"] = [
        f'export RAY_HEAD_IP; unshare --mount sh -c "mount -t tmpfs tmpfs /tmp/ray && {start}"'
    ]
    (source / "mine.yaml").write_text(yaml.safe_dump(config))
    return source


def _listen(machine: Machine) -> None:
    """An SSH server on both addresses, for one key."""
    folder = machine.folder
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    options = f"""AuthorizedKeysFile={folder}/key.pub StrictModes=no UsePAM=no PidFile=none
        PasswordAuthentication=no KbdInteractiveAuthentication=no PermitRootLogin=prohibit-password"""
    addresses = ["ListenAddress=127.0.0.1", "ListenAddress=127.0.0.2"]
    flags = [word for option in [*addresses, *options.split()] for word in ("-o", option)]
    machine.start("/usr/sbin/sshd", "-D", "-f", "/dev/null", "-h", folder / "host_key", *flags)


def _prepare(machine: Machine) -> None:
    """An environment that has what RayNAS needs, but not RayNAS, and no network to get it from."""
    wheels, environment = machine.folder / "wheels", machine.home / "raynas-env"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "download", "-q", "--no-deps", "-d", wheels, "setuptools>=77"], capture_output=True)
    if done.returncode:
        pytest.skip(f"needs setuptools from PyPI: {done.stderr.decode().strip()[-300:]}")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(next(p for p in sys.path if p.endswith("site-packages")))
    ray = environment / "bin" / "ray"
    ray.write_text(f"#!{environment}/bin/python\nfrom ray.scripts.scripts import main\nmain()\n")
    ray.chmod(0o755)
    (machine.home / ".bashrc").write_text(f"export PIP_NO_INDEX=1 PIP_FIND_LINKS={wheels} RAY_worker_niceness=0\n")


@pytest.fixture(scope="module")
def cluster(machine: Machine, source: Path) -> Iterator[Machine]:
    """`ray up`; and `ray down` at the end."""
    _prepare(machine)
    _listen(machine)
    machine.run("ray", "get-auth-token", "--generate")
    (machine.home / ".ray" / "auth_token").chmod(0o600)
    machine.run("ray", "up", "-y", "--no-config-cache", "mine.yaml", folder=source)
    yield machine
    machine.run("ray", "down", "-y", "mine.yaml", folder=source)
    left = machine.run("ps", "-A", "-o", "comm=").stdout.split()
    assert not {"raylet", "gcs_server"} & set(left), left


def test_submit_runs_the_file_alone_on_both_machines(cluster: Machine, source: Path) -> None:
    arguments = [*SEARCH, *BOTH, "--storage-path", "runs", "--name", "submitted"]
    submit = ["ray", "submit", "--no-config-cache", "mine.yaml", "raynas/launch.py", "--"]
    done = cluster.run(*submit, *arguments, folder=source)
    assert "report:" in done.stdout
    assert (cluster.home / "launch.py").is_file()
    folder = cluster.home / "runs" / "submitted"
    rows = results.read(folder / "scored.parquet").to_pylist()
    assert len({row["key"] for row in rows if row["status"] in ("complete", "stopped")}) == 6
    # An actor takes a processor, and each machine has one.
    *_, last = (folder / "supernet" / "training.jsonl").read_text().splitlines()
    assert json.loads(last)["workers"] == 2
    assert {row["worker"] for row in rows} <= {"supernet-0", "supernet-1"}
    assert (folder / "leaderboard.json").exists() and (folder / "report.html").exists()


def test_exec_goes_on_with_the_run(cluster: Machine, source: Path) -> None:
    if not (cluster.home / "runs" / "submitted").exists():
        pytest.skip("there is no run to go on with")
    words = "python -m raynas.launch --storage-path runs --resume submitted --trust search.num_samples=8"
    cluster.run("ray", "exec", "--no-config-cache", "mine.yaml", words, folder=source)
    rows = results.read(cluster.home / "runs" / "submitted" / "scored.parquet").to_pylist()
    assert len({row["key"] for row in rows if row["status"] in ("complete", "stopped")}) == 8


def test_a_job_brings_its_own_code(cluster: Machine, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(Path(__file__).parents[1] / "helpers" / "tiny.py", work / "my_job_net.py")
    words = [word.replace("my_net", "my_job_net") for word in SEARCH]
    line = ["ray", "job", "submit", "--address", "http://127.0.0.1:8265", "--submission-id", "named"]
    line += ["--working-dir", str(work)]
    search = ["python", "-m", "raynas.launch", *words, "--storage-path", str(tmp_path), "--name", "job"]
    refused = cluster.run(*line, "--", *search, fails=True, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="another")
    assert "403" in refused.stdout + refused.stderr or "uthentication" in refused.stdout + refused.stderr
    assert not (tmp_path / "job").exists()
    begin = time.time()
    cluster.run(*line, "--", *search, RAY_AUTH_MODE="token", PATH=f"{cluster.home}/raynas-env/bin:/usr/bin:/bin")
    listed = cluster.run("ray", "job", "list", "--address", line[4], RAY_AUTH_MODE="token")
    assert "submission_id='named'" in listed.stdout
    rows = results.read(tmp_path / "job" / "scored.parquet").to_pylist()
    assert len({row["key"] for row in rows if row["status"] in ("complete", "stopped")}) == 6
    assert all(row["time"].timestamp() >= begin - 1 for row in rows)
