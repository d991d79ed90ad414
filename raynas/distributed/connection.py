"""Joining a Ray cluster, or starting Ray on this machine."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from raynas.config.run import Config
from raynas.config.trust import foreign
from raynas.distributed import health as watch
from raynas.distributed.local_ray import on_loopback, private_folder
from raynas.exceptions import ConfigError
from raynas.storage.atomic import create_text

__all__ = ["LOOPBACK", "Terminated", "check_address", "connect", "requires_token", "token_place"]

LOOPBACK = "127.0.0.1"
_ELSEWHERE = "run on one of the cluster's nodes with --address auto, or use ray job submit (see cluster/README.md)"
TIMEOUT = 30.0
"""Seconds in which the head of a cluster must answer; Ray itself would wait for more than a minute."""
_ASK = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError, RpcError
try:
    GcsClient(address=sys.argv[1])
    print("open")
except AuthenticationError:
    print("token")
except RpcError as error:
    print("none" if error.rpc_code == 12 else "")  # gRPC's UNIMPLEMENTED: another of Ray's ports
"""


class Terminated(KeyboardInterrupt):
    """SIGTERM: as Ctrl-C, from a scheduler or a cloud that wants the machine back."""


def connect(config: Config, dashboard: str | None = None, verbose: bool = False) -> str | None:
    """Join the Ray cluster at ``config.address`` or ``$RAY_ADDRESS``, or start Ray on this machine.

    From then on SIGTERM ends this program as Ctrl-C does: what is trained is kept first.

    Args:
        config: Its ``address`` counts.
        dashboard: The host on which a Ray that is started here shows its dashboard, if it is to show one.
        verbose: Show what Ray and the workers print.

    Returns:
        The URL of Ray's dashboard; None where there is none, or where this program is connected already.

    Raises:
        ConfigError: There is no cluster at that address that lets this program in, or Ray does not start here.
    """
    if ray.is_initialized():
        return None
    address = check_address(config)
    try:
        with nullcontext() if address else watch.starting(_onward(config)):
            url = _connect(address, dashboard, verbose)
        watch.start(own=address is None, interrupts=threading.current_thread() is threading.main_thread())
        return url
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _terminate)  # in place of Ray's own, which leaves at once


def _onward(config: Config) -> str:
    """How to go on with a run whose program has ended."""
    if config.name is None:
        return ""
    path = config.storage_path
    place = f"{path.rstrip('/')}/{config.name}" if "://" in path else str(Path(path).expanduser() / config.name)
    trust = " --trust" if foreign(config) else ""
    return f"go on with: python -m raynas.launch --resume {shlex.quote(place)}{trust}"


def _terminate(number: int, frame: FrameType | None) -> None:
    raise watch.found() or Terminated


def _connect(address: str | None, dashboard: str | None, verbose: bool) -> str | None:
    level = logging.INFO if verbose else logging.ERROR
    if address is not None:
        return _join(address, verbose, level)
    _check_dashboard(dashboard)
    if os.environ.get("RAY_AUTH_MODE", "token") == "token":
        _make_token()
    shown = {"include_dashboard": dashboard is not None, "dashboard_host": dashboard or LOOPBACK}
    with on_loopback():
        return _init(address="local", log_to_driver=verbose, logging_level=level, _temp_dir=private_folder(), **shown)


def _init(address: str, **options: Any) -> str | None:
    """Call ``ray.init``, and say in one line why not; returns the URL of the dashboard.

    Raises:
        ConfigError: As :func:`connect` does.
    """
    try:
        url = ray.init(address=address, **options).dashboard_url
    except (AuthenticationError, OSError, RuntimeError, ValueError) as error:
        ray.shutdown()
        raise ConfigError(_why(address, error)) from error
    return f"http://{url}" if url else None


def token_place() -> str:
    """Where the token is that Ray's dashboard asks for, for people."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "in RAY_AUTH_TOKEN"
    return f"in {os.environ.get('RAY_AUTH_TOKEN_PATH') or Path.home() / '.ray' / 'auth_token'}"


def check_address(config: Config) -> str | None:
    """The address of the cluster to join; None where Ray is to be started here.

    Raises:
        ConfigError: It is none that a driver can join.
    """
    address = config.address or os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return None
    if "://" in address:
        raise ConfigError(
            f"address {address!r} is for Ray's clients, not for a driver; legal: auto, host:port; {_ELSEWHERE}"
        )
    host, port = _split(address)
    if address != "auto" and not (host and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"address {address!r} is no address of a cluster; legal: auto, host:port, e.g. 10.0.0.5:6379")
    return address


def _check_dashboard(host: str | None) -> None:
    """Refuse a dashboard that others reach and that asks for no token: whoever reaches it runs code as its owner.

    Raises:
        ConfigError: It is such a one.
    """
    if host is None or os.environ.get("RAY_AUTH_MODE", "token") == "token" or _is_loopback(host):
        return
    raise ConfigError(
        f"a dashboard on {host} without a token lets everyone who reaches it run code here: unset RAY_AUTH_MODE, "
        f"or keep it on {LOOPBACK}"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _make_token() -> None:
    """Make the token that Ray would make, or take the one that is there; either is its owner's alone."""
    path = Path.home() / ".ray" / "auth_token"
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    try:
        if path.exists():
            path.chmod(0o600)  # Ray leaves it readable by everyone
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        create_text(path, secrets.token_hex(32), 0o600)
    except FileExistsError:
        return  # another run was faster
    except OSError as error:
        raise ConfigError(
            f"cannot keep a token for Ray in {path}: {error.strerror}; name another file by RAY_AUTH_TOKEN_PATH"
        ) from None


def _split(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), port


def _join(address: str, verbose: bool, level: int) -> str | None:
    """Join a cluster, and say in one line why not; returns the URL of its dashboard.

    Raises:
        ConfigError: It is not there or no Ray head, wants another token or none, or runs another Ray or Python.
    """
    if address != "auto":
        try:
            socket.create_connection((_split(address)[0], int(_split(address)[1])), timeout=10).close()
        except OSError as error:
            raise ConfigError(f"no Ray cluster answers at {address}: {error.strerror or error}") from None
        if requires_token(address) is False and os.environ.get("RAY_AUTH_MODE") == "token":
            # Ray lets it join, and ends each of its actors at once.
            raise ConfigError(
                f"the cluster at {address} asks for no token, and starts no actors of a program with "
                "RAY_AUTH_MODE=token: start every node with RAY_AUTH_MODE=token"
            )
    # So many attempts: Ray takes a refusal for a head that is still starting, and would ask for half a minute.
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "2")
    return _init(address=address, log_to_driver=verbose, logging_level=level)


def requires_token(address: str) -> bool | None:
    """Whether the head of a cluster asks for a token; None where it does not become clear.

    A process of its own asks without one: Ray has one mode of authentication for the whole of a process, and what
    listens there may be anything.

    Args:
        address: host:port.

    Raises:
        ConfigError: What listens there is no head.
    """
    line, environment = [sys.executable, "-c", _ASK, address], {**os.environ, "RAY_AUTH_MODE": "disabled"}
    try:
        done = subprocess.run(
            line, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT
        )
        answer = done.stdout.strip()
    except subprocess.TimeoutExpired:
        answer = "none"
    if answer == "none":
        raise ConfigError(
            f"something answers at {address}, but it is no Ray head, or one that is busy for more than {TIMEOUT:g} s: "
            "the port is that of ray start --head (6379), not the dashboard's (8265) or the client's (10001)"
        )
    return {"token": True, "open": False}.get(answer)


def _why(address: str, error: BaseException) -> str:
    """What kept this program from joining a cluster or starting Ray, from what Ray says of it."""
    chain: BaseException | None = error
    reason = ""
    while chain is not None:
        reason += f" {chain}"
        chain = chain.__cause__ or chain.__context__
    reason = " ".join(reason.split())
    if address == "local":
        return f"Ray does not start here: {reason.partition('. Ensure')[0].partition('Traceback')[0][:300].strip()}"
    if "AuthToken" in reason or isinstance(error, AuthenticationError):
        return (
            f"the cluster at {address} does not take this program's token: set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN_PATH to a file with what ~/.ray/auth_token holds on its head node"
        )
    versions = re.search(r"Ray: (\S+) Python: (\S+).*?Ray: (\S+) Python: (\S+)", reason)
    if "Version mismatch" in reason and versions:
        theirs, own = versions.groups()[:2], versions.groups()[2:]
        return (
            f"the cluster at {address} runs Ray {theirs[0]} on Python {theirs[1]}, this program Ray {own[0]} on Python "
            f"{own[1]}: they must be the same; {_ELSEWHERE}"
        )
    return f"cannot join the Ray cluster at {address}: {reason.partition('Traceback')[0][:300].strip()}"
