"""Where the ranks of a training meet: at one address of the first rank, and not at all that its machine has."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from torch import distributed as dist

__all__ = ["meet"]


def meet(address: str, rank: int, world: int, timeout: timedelta) -> Any:
    """The store by which ranks find each other; torch's own way would let rank 0 listen on all interfaces.

    Args:
        address: ``tcp://host:port`` of rank 0.
        rank: Of this process.
        world: How many there are.
        timeout: How long one may wait for another.
    """
    host, port = urlsplit(address).hostname, urlsplit(address).port
    assert host is not None and port is not None
    if _is_loopback(host):  # else gloo listens wherever the name of this machine leads
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    listens = None
    if rank == 0:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listens = socket.create_server((host, port), family=family, backlog=max(world, 128)).detach()
        except OSError:
            pass  # behind an address translation it has another address than others call it by
    make: Any = dist.TCPStore  # type: ignore[attr-defined]
    return make(host, port, world, rank == 0, timeout=timeout, wait_for_workers=False, master_listen_fd=listens)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
