"""Room for actors and trials: what is there, what others hold, and what a cluster starts when it is asked."""

import logging
import time

import pytest
import ray

from raynas.config.train import TrainConfig
from raynas.distributed import placement
from raynas.distributed.placement import Placement, check_room, place, place_ranks, reserve
from raynas.exceptions import ConfigError


@pytest.fixture
def growing(monkeypatch):
    """A cluster with a head alone, which starts a node of 4 CPUs and 2 GPUs a moment after it is asked for more."""
    asked = []
    born = []

    def nodes():
        here = [{"Alive": True, "Resources": {"CPU": 2.0}}]
        late = [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}} for at in born if time.monotonic() > at]
        return here + late

    def request_resources(num_cpus=None, bundles=None):
        asked.append(bundles or num_cpus)
        born.extend([time.monotonic() + 0.5] * (len(bundles or ()) // 2))

    monkeypatch.setattr(ray, "nodes", nodes)
    monkeypatch.setattr(placement, "request_resources", request_resources)
    return asked


def test_nodes_that_are_missing_are_asked_for_and_waited_for(growing, caplog):
    recipe = TrainConfig(workers=4, gpus_per_worker=1.0, wait_minutes=0.5).resolved()
    with caplog.at_level(logging.WARNING):
        assert place_ranks(recipe) == Placement(4, 2.0, 1.0)
    assert growing == [[{"CPU": 1.0, "GPU": 1.0}] * 4, 0]  # and the request is taken back
    assert "4 actors of 1 CPUs and 1 GPUs do not fit" in caplog.text and "waiting up to 0.5 minutes" in caplog.text


def test_nobody_waits_unless_told_to(growing):
    with pytest.raises(ConfigError, match="4 actors of 1 CPUs and 1 GPUs do not fit into the cluster"):
        place(4, gpus=1)
    assert growing == []


def test_waiting_ends(growing):
    begin = time.monotonic()
    with pytest.raises(ConfigError, match="1 actors of 9 CPUs do not fit into the cluster"):
        place(1, cpus=9, wait_minutes=0.02)
    assert time.monotonic() - begin < 60 and growing == [[{"CPU": 9.0}], 0]


def test_what_fits_asks_for_nothing(growing):
    assert place(2, cpus=1, wait_minutes=1) == Placement(2, 1.0, 0.0) and growing == []


def test_room_that_others_hold_is_named(ray_session, monkeypatch):
    check_room([{"CPU": 2.0}] * 2, "trials")
    held = reserve([{"CPU": 3.0}], "actors")  # what was looked at is free again
    monkeypatch.setattr(placement, "ROOM_SECONDS", 0.5)
    with pytest.raises(RuntimeError, match="no room for 2 trials of 2 CPUs each: others use the cluster, where 1 CPUs"):
        check_room([{"CPU": 2.0}] * 2, "trials")
    with pytest.raises(RuntimeError, match="no room for 1 trials of 1 CPUs and 1 GPUs each"):
        check_room([{"CPU": 1.0, "GPU": 1.0}], "trials")
    ray.util.remove_placement_group(held)
