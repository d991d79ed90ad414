"""Ray that is started here: who reaches it, who reads what it writes, and that no secret is in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
import ray
from ray._private import ray_constants
from ray.tune.execution import class_cache

from raynas.distributed import credentials, local_ray
from raynas.distributed.local_ray import on_loopback, private_folder
from raynas.distributed.rendezvous import meet
from raynas.exceptions import ConfigError

SECRETS = {
    "AWS_ACCESS_KEY_ID": "planted-aws-id",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret",
    "AWS_SESSION_TOKEN": "planted-aws-session",
    "WANDB_API_KEY": "planted-wandb",
    "RAY_AUTH_TOKEN": "planted-token-of-more-than-32-characters",
}


@pytest.mark.ray
def test_only_this_machine_reaches_a_search_and_no_secret_is_written_down(tmp_path: Path, repository: Path) -> None:
    """Shared weights on two ranks and two replicas, retraining, training from scratch; with Ray's dashboard."""
    if ray.is_initialized():
        ray.shutdown()  # two clusters on one small machine get into each other's way
    environment = {**os.environ, **SECRETS, "RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}
    line = [
        sys.executable,
        str(repository / "tests" / "helpers" / "watched.py"),
        str(tmp_path / "runs"),
        *SECRETS.values(),
    ]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["codes"] == [0, 0], done.stderr
    assert {name for name, _ in told["sockets"]} >= {"gcs_server", "raylet", "ray::DashboardAgent"}
    wide = [(name, address) for name, address in told["sockets"] if address not in ("127.0.0.1", "::ffff:127.0.0.1")]
    # Where Ray Train lets the ranks of a retraining meet: cluster/README.md says so. Ray names a process by its actor,
    # and by the method while that runs.
    meeting = ("ray::RayTrainWo", "ray::execute._setup_torch_process_group")
    assert all(name.startswith(meeting) and address == "::" for name, address in wide), wide
    assert told["agent"] > 0 and told["files"] > 100, "there is nothing to look into"
    assert told["found"] == []
    assert told["mode"] == 0o700 and told["inside"]
    assert not Path(told["place"]).exists(), "the folder of a driver that ended well is left"


def test_tune_copies_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS, "RAY_CHDIR_TO_TRIAL_DIR"):
        monkeypatch.setenv(name, "planted")

    def given() -> dict[str, str]:
        class Trainable:
            pass

        made = class_cache._ActorClassCache().get(Trainable)
        return dict(made._default_options["runtime_env"]["env_vars"])

    before = given()
    assert before["AWS_SECRET_ACCESS_KEY"] == "planted", "Ray does it no more: raynas.distributed.credentials may go"
    with credentials.kept_out():
        assert given() == {name: value for name, value in before.items() if not name.startswith("AWS_")}
    assert given() == before


def test_a_ray_that_copies_them_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(class_cache, "ENV_VARS_TO_PROPAGATE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    with credentials.kept_out():
        pass
    assert "may write AWS_SECRET_ACCESS_KEY" in caplog.text and "planted" not in caplog.text


def test_a_ray_that_cannot_keep_to_loopback_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(ray_constants, "ENABLE_RAY_CLUSTER")
    with on_loopback():
        pass
    assert "listens on all interfaces" in caplog.text


def test_nothing_stays_changed_for_clusters() -> None:
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    with on_loopback():
        assert os.environ[name] == "0" and not ray_constants.ENABLE_RAY_CLUSTER
    assert name not in os.environ and ray_constants.ENABLE_RAY_CLUSTER


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of its own, with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(local_ray, "_MADE", {})
    local_ray._private_folder.cache_clear()
    yield folder
    local_ray._private_folder.cache_clear()
    shutil.rmtree(folder)


def test_the_folder_is_its_owners_alone_and_the_same_at_every_call(base: Path) -> None:
    place = Path(private_folder())
    assert place.parent.parent == base and place.parent.stat().st_mode & 0o777 == 0o700
    assert private_folder() == str(place)


def test_what_the_dead_left_is_removed_and_nothing_else(base: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys, tempfile; from raynas.distributed.local_ray import private_folder; from pathlib import Path;"
        "place = Path(private_folder()); (place / 'logs').mkdir(parents=True); print(place.parent, flush=True);"
        "sys.stdin.read() if len(sys.argv) > 1 else os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "TMPDIR": str(base)}
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    dead = Path(killed.stdout.strip())
    assert dead.parent == base and (dead / "r" / "logs").is_dir(), killed.stderr
    outside = tmp_path / "outside"
    for folder in (outside, base / "rn-open1234", base / "rn-nolock12", base / "other"):
        folder.mkdir(mode=0o700)
        (folder / "kept").touch()
    for folder in (outside, base / "rn-open1234", base / "other"):
        (folder / ".lock").touch()
    (base / "rn-open1234").chmod(0o755)  # RayNAS makes none that others may read
    (base / "rn-linked12").symlink_to(outside)
    with subprocess.Popen(
        [sys.executable, "-c", code, "lives"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as alive:
        living = Path(alive.stdout.readline().strip())
        assert not dead.exists() and (living / "r" / "logs").is_dir()
        private_folder()
        assert (living / "r" / "logs").is_dir(), "the folder of a driver that is at work was removed"
        alive.stdin.close()
    assert not living.exists(), "a driver that ends well removes its own"
    for folder in (outside, base / "rn-open1234", base / "rn-nolock12", base / "other"):
        assert (folder / "kept").exists()


@pytest.mark.parametrize(
    ("name", "mode", "ends"), [("ray::DashboardAgent", "a", True), ("ray::x", "r", False), ("tail", "a", False)]
)
def test_what_a_dead_ray_has_left_running_is_ended(base: Path, name: str, mode: str, ends: bool) -> None:
    """The processes of Ray that write into the folder of a driver that was killed, and no others."""
    code = "import signal, sys; from raynas.distributed.local_ray import private_folder; print(private_folder())"
    code += "; sys.stdout.flush(); signal.raise_signal(signal.SIGKILL)"
    environment = {**os.environ, "TMPDIR": str(base)}
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    dead = Path(killed.stdout.strip())
    (dead / "logs").mkdir(parents=True)
    file = dead / "logs" / "agent.log"
    file.touch()
    code = f"import sys, time; file = open({str(file)!r}, {mode!r}); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([name, "-c", code], executable=sys.executable, stdout=subprocess.PIPE, text=True) as left:
        assert left.stdout is not None and left.stdout.readline() == "open\n"
        private_folder()
        assert not dead.exists()
        if ends:
            assert left.wait(10) == -signal.SIGKILL
        assert ends == (left.poll() is not None)
        left.kill()


def test_where_the_temporary_folder_has_a_long_path_another_is_taken(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = base / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert local_ray._base() == Path("/tmp")
    monkeypatch.setattr(local_ray.os, "access", lambda *ignored: False)
    with pytest.raises(ConfigError, match=r"none of .*x, /tmp, /var/tmp is one; name another one by TMPDIR"):
        local_ray._base()


def test_the_longest_path_that_is_taken_still_holds_rays_sockets() -> None:
    longest = "/" + "b" * (local_ray._LONGEST - 1)
    name = f"{longest}/rn-12345678/r/session_2026-12-01_00-17-01_596212_1234567/sockets/plasma_store.1"
    assert len(name) == 107


def test_ranks_meet_at_one_address_alone() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = meet(f"tcp://127.0.0.1:{port}", 0, 1, timedelta(seconds=20))
    store.set("x", "1")
    assert store.get("x") == b"1"
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):  # of all addresses of this machine the store would take this one, too
        socket.create_connection(("127.0.0.2", port), timeout=5)
