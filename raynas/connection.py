"""Joining a Ray cluster, or starting Ray on this machine."""

from __future__ import annotations

import logging
import os

import ray

from raynas.config import Config

__all__ = ["connect"]


def connect(config: Config, dashboard: bool = False, verbose: bool = False) -> None:
    """Join the Ray cluster at ``config.address`` or ``$RAY_ADDRESS``, or start Ray on this machine."""
    if ray.is_initialized():
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    logging_level = logging.INFO if verbose else logging.ERROR
    if address:
        ray.init(address=address, log_to_driver=verbose, logging_level=logging_level)
    else:
        ray.init(address="local", include_dashboard=dashboard, log_to_driver=verbose, logging_level=logging_level)
