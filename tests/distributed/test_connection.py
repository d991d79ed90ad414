"""Joining a cluster or starting one: what is refused before anything is tried, and what is made ready."""

import os
import socket
import stat
import time
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import AuthenticationError

from raynas.config.run import Config
from raynas.distributed import connection
from raynas.distributed.connection import check_address, connect
from raynas.exceptions import ConfigError


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What Ray is started with, in a home without a token."""
    calls = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def init(**options):
        calls.append(options)
        return SimpleNamespace(dashboard_url="127.0.0.1:8265")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return calls


@pytest.mark.parametrize("address", ["nonsense", "host:", "host:none", "host:70000", ":6379", "127.0.0.1"])
def test_what_is_no_address_is_refused_with_the_legal_forms(address, no_ray):
    with pytest.raises(ConfigError, match=f"address '{address}' is no address of a cluster; legal: auto, host:port"):
        connect(Config(address=address))


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "http://127.0.0.1:8265"])
def test_addresses_for_clients_are_refused_wherever_they_come_from(address, no_ray, monkeypatch):
    with pytest.raises(ConfigError, match="for Ray's clients, not for a driver; legal: auto, host:port"):
        check_address(Config(address=address))
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match="for Ray's clients"):
        check_address(Config())


def test_addresses_of_clusters_are_taken(monkeypatch):
    for address in ("auto", "10.0.0.5:6379", "head.example.org:6379", "[::1]:6379"):
        assert check_address(Config(address=address)) == address
    assert check_address(Config(address="local")) is None
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert check_address(Config()) == "auto" and check_address(Config(address="local")) is None


def test_where_nobody_listens_it_says_so(no_ray):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConfigError, match=f"no Ray cluster answers at 127.0.0.1:{port}: Connection refused"):
        connect(Config(address=f"127.0.0.1:{port}"))


def test_what_listens_and_is_no_head_is_told_with_the_ports(no_ray, monkeypatch):
    monkeypatch.setattr(connection, "TIMEOUT", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:  # as sshd would, or the dashboard
        address = f"127.0.0.1:{server.getsockname()[1]}"
        begin = time.monotonic()
        with pytest.raises(ConfigError, match=rf"something answers at {address}, but it is no Ray head.*\(6379\)"):
            connect(Config(address=address))
    assert time.monotonic() - begin < 45


def test_a_token_for_a_head_that_asks_for_none_is_refused(no_ray, monkeypatch):
    monkeypatch.setattr(connection, "requires_token", lambda address: False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"the cluster at {address} asks for no token, and starts no actors"):
            connect(Config(address=address))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AuthenticationError("no token in /x"), "Ray does not start here: no token in /x"),
        (
            PermissionError(13, "Permission denied", "/tmp/ray"),
            "Ray does not start here: .*Permission denied: '/tmp/ray'",
        ),
    ],
)
def test_why_ray_does_not_start_here_is_one_line(error, said, started, monkeypatch):
    def refused(**options):
        raise error

    monkeypatch.setattr(ray, "init", refused)
    with pytest.raises(ConfigError, match=said) as told:
        connect(Config())
    assert "\n" not in str(told.value) and len(str(told.value)) < 200


def test_the_token_is_its_owners_alone(started, tmp_path):
    token = tmp_path / ".ray" / "auth_token"
    connect(Config())
    made = token.read_text()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600 and len(made) == 64
    token.chmod(0o644)
    connect(Config())
    assert stat.S_IMODE(token.stat().st_mode) == 0o600 and token.read_text() == made


@pytest.mark.parametrize(
    ("name", "value"), [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN", "x"), ("RAY_AUTH_TOKEN_PATH", "/x")]
)
def test_no_token_is_made_where_none_is_wanted_or_another_is_named(name, value, started, tmp_path, monkeypatch):
    monkeypatch.setenv(name, value)
    connect(Config())
    assert len(started) == 1 and not any(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_is_said(started, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match=r"cannot keep a token for Ray in .*RAY_AUTH_TOKEN_PATH"):
        connect(Config())


def test_the_dashboard_stays_on_this_machine_unless_asked(started):
    connect(Config())
    connect(Config(), dashboard="127.0.0.1")
    connect(Config(), dashboard="0.0.0.0")
    assert [(call["include_dashboard"], call["dashboard_host"]) for call in started] == [
        (False, "127.0.0.1"),
        (True, "127.0.0.1"),
        (True, "0.0.0.0"),
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "gpu1.example.org"])
def test_a_dashboard_for_others_without_a_token_is_refused(host, started, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match=f"a dashboard on {host} without a token lets everyone who reaches it run"):
        connect(Config(), dashboard=host)
    assert not started
    for loopback in ("127.0.0.1", "::1", "localhost"):
        connect(Config(), dashboard=loopback)
    assert len(started) == 3


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"storage_path": "runs", "name": "one"}, "go on with: python -m raynas.launch --resume runs/one"),
        ({"storage_path": "/my runs", "name": "one"}, "go on with: python -m raynas.launch --resume '/my runs/one'"),
        ({"storage_path": "s3://b/r/", "name": "one"}, "go on with: python -m raynas.launch --resume s3://b/r/one"),
        (
            {"storage_path": "runs", "name": "one", "space": "mine:space"},
            "go on with: python -m raynas.launch --resume runs/one --trust",
        ),
        ({}, ""),
    ],
)
def test_how_to_go_on_is_a_whole_command(settings: dict[str, str], line: str) -> None:
    assert connection._onward(Config(**settings)) == line
