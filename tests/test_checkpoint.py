import errno
import logging
import os

import pytest
import torch

from raynas import patience
from raynas.checkpoint import CheckpointError, keep_initial, latest, read, read_initial, write
from raynas.removal import own


@pytest.fixture
def tmp_path(tmp_path):
    """A folder below one that RayNAS has marked: elsewhere it removes nothing."""
    own(tmp_path / "marked")
    (tmp_path / "marked" / "folder").mkdir()
    return tmp_path / "marked" / "folder"


TENSORS = {"model/a": torch.arange(6.0).view(2, 3), "momentum/0": torch.ones(3), "count": torch.tensor(7)}


def test_what_was_written_is_read(tmp_path):
    path = write(tmp_path, 12, TENSORS, {"total": 99})
    step, tensors, values = read(path)
    assert (step, values) == (12, {"total": 99})
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_initial_weights_stay_beside_the_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match=r"without keeping its initial weights.*train it again in a new run"):
        read_initial(tmp_path)
    keep_initial(tmp_path, {"a": TENSORS["model/a"]})
    for step in (1, 2, 3):
        write(tmp_path, step, TENSORS, {})
    assert torch.equal(read_initial(tmp_path)["a"], TENSORS["model/a"]) and latest(tmp_path)[0] == 3
    (tmp_path / "initial.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"initial\.safetensors is damaged"):
        read_initial(tmp_path)


def test_the_newest_are_kept_and_the_newest_is_used(tmp_path):
    for step in (5, 100, 20):
        write(tmp_path, step, TENSORS, {}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000020.safetensors", "step-000000100.safetensors"]
    assert latest(tmp_path)[0] == 100


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
def test_a_damaged_one_is_named_and_the_one_before_is_used(tmp_path, damage, caplog):
    write(tmp_path, 1, TENSORS, {})
    newest = write(tmp_path, 2, TENSORS, {})
    content = bytearray(newest.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[-3] ^= 1
    elif damage == "empty":
        content = bytearray()
    else:
        content = bytearray(b"something else altogether")
    newest.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        step, tensors, _ = latest(tmp_path)
    assert step == 1 and torch.equal(tensors["model/a"], TENSORS["model/a"])
    assert "step-000000002.safetensors is damaged" in caplog.text


def test_nothing_is_there(tmp_path):
    assert latest(tmp_path / "none") is None


def test_all_damaged_is_an_error_and_no_silent_restart(tmp_path):
    write(tmp_path, 1, TENSORS, {}).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step-000000001.*no usable checkpoint is left"):
        latest(tmp_path)


def test_a_full_disk_is_named_and_costs_nothing(tmp_path, monkeypatch):
    write(tmp_path, 1, TENSORS, {})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(patience, "PATIENCE", 0.0)
    with pytest.raises(CheckpointError, match=r"step-000000002.*the disk is full"):
        write(tmp_path, 2, TENSORS, {})
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["step-000000001.safetensors"]
    assert latest(tmp_path)[0] == 1
