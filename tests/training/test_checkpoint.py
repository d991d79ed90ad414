import errno
import json
import logging
import math
import os
import resource
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from raynas.exceptions import CheckpointError
from raynas.storage import atomic
from raynas.storage.removal import own
from raynas.training import checkpoint
from raynas.training.checkpoint import keep_initial, latest, latest_header, newest, read, read_initial, write


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
    monkeypatch.setattr(atomic, "RETRY_SECONDS", 0.0)
    with pytest.raises(CheckpointError, match=r"step-000000002.*the disk is full"):
        write(tmp_path, 2, TENSORS, {})
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["step-000000001.safetensors"]
    assert latest(tmp_path)[0] == 1


def edited(path, change):
    """Write a checkpoint once more with metadata that were changed; its tensors stay."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["raynas"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    save_file(tensors, path, {"raynas": json.dumps(change(header))})


METADATA = {
    "no object": lambda header: [1, 2],
    "null": lambda header: None,
    "no step": lambda header: {n: v for n, v in header.items() if n != "step"},
    "a step as text": lambda header: {**header, "step": "2"},
    "another step": lambda header: {
        **header,
        "step": 3,
        "header_digest": checkpoint._header_digest({**header, "step": 3}),
    },
    "values as a list": lambda header: {**header, "values": []},
    "no digest": lambda header: {n: v for n, v in header.items() if n != "digest"},
    "an edited value": lambda header: {**header, "values": {**header["values"], "total": 98}},
    "no total": lambda header: without_digest(header, {}),
    "a total as text": lambda header: without_digest(header, {"total": "99"}),
    "a total below the step": lambda header: without_digest(header, {"total": 1}),
    "seconds that are none": lambda header: without_digest(header, {"total": 99, "seconds": math.inf}),
    "losses as text": lambda header: without_digest(header, {"total": 99, "losses": "1.5"}),
    "rounds as a list": lambda header: without_digest(header, {"total": 99, "rounds": []}),
}


def without_digest(header, values):
    """As earlier versions wrote it."""
    return {name: value for name, value in header.items() if name != "header_digest"} | {"values": values}


@pytest.mark.parametrize("change", METADATA.values(), ids=METADATA)
@pytest.mark.parametrize("read_newest", [latest, latest_header])
def test_metadata_of_the_wrong_shape_are_named_and_the_one_before_is_used(tmp_path, change, read_newest, caplog):
    write(tmp_path, 1, TENSORS, {"total": 99})
    edited(write(tmp_path, 2, TENSORS, {"total": 99}), change)
    found = read_newest(tmp_path, ("total",))
    assert (found[0], found[-1]) == (1, {"total": 99})
    assert len(caplog.records) == 1 and "step-000000002.safetensors is damaged" in caplog.text
    assert "\n" not in caplog.records[0].getMessage()


def test_files_of_somebody_else_are_passed_over(tmp_path):
    write(tmp_path, 2, TENSORS, {})
    for name in (
        "step-last.safetensors",
        "step-9.safetensors",
        "step-000000003.safetensors.bak",
        "step-²²²²²²²²².safetensors",
    ):
        (tmp_path / name).write_bytes(b"")
    assert latest(tmp_path)[0] == latest_header(tmp_path)[0] == newest(tmp_path) == 2
    write(tmp_path, 3, TENSORS, {}, keep=1)
    assert (tmp_path / "step-last.safetensors").exists() and not (tmp_path / "step-000000002.safetensors").exists()


def test_a_checkpoint_of_an_earlier_version_is_read(tmp_path):
    edited(write(tmp_path, 2, TENSORS, {"total": 99}), lambda header: without_digest(header, {"total": 99}))
    assert latest(tmp_path)[::2] == (2, {"total": 99}) == latest_header(tmp_path)


def test_a_header_is_read_without_the_tensors(tmp_path, monkeypatch):
    path = write(tmp_path, 2, TENSORS, {"total": 99})
    flipped = bytearray(path.read_bytes())
    flipped[-3] ^= 1
    path.write_bytes(flipped)
    monkeypatch.setattr(checkpoint, "_digest", lambda tensors: pytest.fail("the tensors were read"))
    assert latest_header(tmp_path) == (2, {"total": 99})
    path.write_bytes(flipped[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        latest_header(tmp_path)


@pytest.mark.slow
def test_a_checkpoint_is_written_without_another_copy_in_memory(tmp_path):
    """A writer with 128 MiB of tensors whose peak is measured: a second copy would show."""
    program = (
        "import resource, sys, torch; from pathlib import Path; from raynas.training import checkpoint\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "checkpoint.write(Path(sys.argv[1]), 1, {'a': torch.ones(8)}, {})\n"
        "tensors = {'a': torch.ones(2**25)}; before = peak()\n"
        "checkpoint.write(Path(sys.argv[1]), 2, tensors, {}); print((peak() - before) / 2**17)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5, "of the size of the tensors"


def test_storage_that_refuses_is_an_os_error_and_leaves_nothing(tmp_path):
    """What safetensors has a type of its own for; here a file may be no longer than 100 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            checkpoint._save(TENSORS, tmp_path / "a.part", {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG and not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    (tmp_path / ".tmpAbCdEf").write_bytes(b"half a checkpoint")
    path = write(tmp_path, 2, TENSORS, {})
    assert list(tmp_path.iterdir()) == [path]
