from __future__ import annotations

import errno
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from datetime import datetime, timezone
from pathlib import Path

import duckdb
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from raynas import architecture, results
from raynas.results import parquet as parts
from raynas.results.log import Log
from raynas.storage.removal import own

MANUAL = math.inf  # rows wait until they are flushed


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder below one that RayNAS has marked: elsewhere it removes nothing."""
    own(tmp_path / "marked")
    (tmp_path / "marked" / "folder").mkdir()
    return tmp_path / "marked" / "folder"


def row(number: int = 0, **changes: object) -> dict[str, object]:
    chosen = {"block": f"option{number}"}
    reached = changes.get("fidelity", 1)
    last = reached if isinstance(reached, int) and reached > 0 else 1
    return {"architecture": chosen, "status": "complete", "fidelity": 1, "max_fidelity": last, "score": 0.5, **changes}


def table(*rows: dict[str, object], folder: Path | str) -> pa.Table:
    with Log(folder, MANUAL) as log:
        for each in rows:
            log.append(each)
    return results.read(folder)


def options(rows: pa.Table) -> list[str]:
    return [json.loads(text)["block"].removeprefix("option") for text in rows.column("architecture").to_pylist()]


def part_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


# What goes in comes out


def test_a_row_comes_back_as_it_was(tmp_path: Path) -> None:
    moment = datetime(2026, 5, 1, 12, 30, 15, 250, tzinfo=timezone.utc)
    given = {
        "run": "first", "trial": "t1", "key": "abc", "architecture": {"b": "x", "a": "y"}, "searcher": "random",
        "origin": "mutation", "parents": "def", "status": "stopped", "fidelity": 2, "max_fidelity": 5, "score": 0.25,
        "metrics": {"loss": 1.5, "note": "fine"},
        "macs": 12_345_678_901, "parameters": 42, "hypervolume": 2.5, "latency_ms": 4.5,
        "seconds": 0.125, "gpu_seconds": 0.25,
        "worker": "node:1", "time": moment, "error": "é\n",
    }  # fmt: skip
    assert set(given) == set(results.SCHEMA.names)
    (back,) = table(given, folder=tmp_path).to_pylist()
    assert json.loads(back.pop("architecture")) == given.pop("architecture")
    assert json.loads(back.pop("metrics")) == given.pop("metrics")
    assert back == given


def test_key_and_time_are_filled_in_and_the_rest_is_null(tmp_path: Path) -> None:
    before = datetime.now(timezone.utc)
    (back,) = table({"architecture": {"block": "x"}, "status": "running"}, folder=tmp_path).to_pylist()
    assert back["key"] == architecture.key({"block": "x"})
    assert before <= back["time"] <= datetime.now(timezone.utc)
    assert back["score"] is back["macs"] is back["error"] is back["metrics"] is None


def test_numbers_of_numpy_are_taken_and_what_is_not_finite_stays_readable_json(tmp_path: Path) -> None:
    metrics = {"top5": np.float32(0.5), "loss": math.nan, "images": np.int64(7), "late": True}
    given = row(score=np.float32(0.75), fidelity=np.int64(1), macs=3.0, metrics=metrics)
    (back,) = table(given, folder=tmp_path).to_pylist()
    assert (back["score"], back["fidelity"], back["macs"]) == (0.75, 1, 3)
    assert json.loads(back["metrics"]) == {"top5": 0.5, "loss": None, "images": 7.0, "late": True}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"scroe": 1.0}, "'scroe'.*score"),
        ({"status": "done"}, "'done'.*running, stopped, complete, error"),
        ({"architecture": None}, "key"),
        ({"fidelity": "two"}, "'fidelity'.*int64.*'two'"),
        ({"macs": 1.5}, "'macs'.*1.5"),
        ({"macs": math.nan}, "'macs'.*nan"),
        ({"worker": 3}, "'worker'.*string"),
    ],
)
def test_an_unfit_row_is_refused_at_once_and_leaves_no_trace(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    with Log(tmp_path, MANUAL) as log:
        with pytest.raises(ValueError, match=named):
            log.append(row(**change))
        log.append(row(7))
    assert options(results.read(tmp_path)) == ["7"]


def test_order_holds_over_parts_and_over_runs(tmp_path: Path) -> None:
    for start in (0, 10):
        with Log(tmp_path, MANUAL) as log:
            for number in range(start, start + 10):
                log.append(row(number))
                log.flush()
    assert options(results.read(tmp_path)) == [str(n) for n in range(20)]
    assert len(part_files(tmp_path)) == 20


def test_other_tools_read_the_folder(tmp_path: Path) -> None:
    table(*(row(n, score=n / 4) for n in range(4)), folder=tmp_path)
    (tmp_path / ".part-00000009-x.parquet.tmp").write_bytes(b"half a part")
    assert pandas.read_parquet(tmp_path)["score"].tolist() == [0.0, 0.25, 0.5, 0.75]
    assert duckdb.sql(f"SELECT max(score), count(*) FROM '{tmp_path}/*.parquet'").fetchall() == [(0.75, 4)]
    assert pq.read_schema(part_files(tmp_path)[0]).field("macs").metadata[b"unit"] == b"MAC"


def test_storage_by_uri(tmp_path: Path) -> None:
    assert options(table(row(1), row(2), folder=(tmp_path / "log").as_uri())) == ["1", "2"]
    assert len(part_files(tmp_path / "log")) == 1


def test_a_storage_that_is_no_local_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Remote:
        @staticmethod
        def from_uri(uri: str) -> tuple[fs.FileSystem, str]:
            return fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), uri.removeprefix("store://")

    monkeypatch.setattr(fs, "FileSystem", Remote)
    with Log("store://bucket/log", MANUAL) as log:
        log.append(row(1))
        log.flush()
        log.append(row(2))
    assert options(results.read("store://bucket/log")) == ["1", "2"]
    assert results.compact("store://bucket/log") == 2
    assert options(results.read(tmp_path / "bucket" / "log")) == ["1", "2"]


# When rows reach the disk


def test_the_timer_writes_without_a_further_append(tmp_path: Path) -> None:
    log = Log(tmp_path, flush_seconds=0.05)
    log.append(row(3))
    deadline = time.monotonic() + 60
    while results.read(tmp_path).num_rows == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert options(results.read(tmp_path)) == ["3"]
    log.close()
    assert len(part_files(tmp_path)) == 1, "close wrote again what was there"


def test_close_twice_and_append_after_close(tmp_path: Path) -> None:
    log = Log(tmp_path, MANUAL)
    log.append(row())
    log.close()
    log.close()
    assert results.read(tmp_path).num_rows == 1
    with pytest.raises(ValueError, match="is closed"):
        log.append(row())


def test_a_program_that_forgets_to_close_loses_nothing(tmp_path: Path) -> None:
    code = "import sys; from raynas.results.log import Log; Log(sys.argv[1], float('inf')).append(" + repr(row(4)) + ")"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    assert options(results.read(tmp_path)) == ["4"]


def test_threads_append_at_the_same_time(tmp_path: Path) -> None:
    with Log(tmp_path, flush_seconds=0.01) as log:
        workers = [
            threading.Thread(target=lambda w=w: [log.append(row(100 * w + n)) for n in range(100)]) for w in range(4)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert sorted(options(results.read(tmp_path)), key=int) == [str(n) for n in range(400)]


def test_a_pickled_log_is_another_writer_of_the_same_folder(tmp_path: Path) -> None:
    with Log(tmp_path, MANUAL) as log:
        log.append(row(1))
        with pickle.loads(pickle.dumps(log)) as other:
            other.append(row(2))
        log.append(row(3))
    assert sorted(options(results.read(tmp_path))) == ["1", "2", "3"]


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(tmp_path, MANUAL)
    log.append(row(1))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"disk is full; 1 rows are kept") as caught:
            log.flush()
        assert caught.value.errno == errno.ENOSPC
        assert list(tmp_path.iterdir()) == [], "the half-written part was left behind"
        log.append(row(2))
        with pytest.raises(OSError, match="2 rows are kept"):
            log.close(timeout=0)
    log.close()
    assert options(results.read(tmp_path)) == ["1", "2"]


def test_a_row_after_a_pause_is_written_at_once(tmp_path: Path) -> None:
    """So kill -9 costs at most what came in the last moments, also where a score takes minutes."""
    log = Log(tmp_path, flush_seconds=60)
    log.append(row(1))
    deadline = time.monotonic() + 60
    while results.read(tmp_path).num_rows < 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for number in range(2, 6):
        log.append(row(number))
    time.sleep(0.1)
    assert len(part_files(tmp_path)) == 1, "rows that come fast are collected"
    log.close()
    assert options(results.read(tmp_path)) == ["1", "2", "3", "4", "5"]


def test_closing_waits_until_the_disk_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusals = [errno.ENOSPC, errno.EROFS]
    sync = os.fsync

    def for_a_while(descriptor: int) -> None:
        if refusals:
            raise OSError(refusals.pop(0), "refused")
        sync(descriptor)

    with Log(tmp_path, MANUAL) as log:
        log.append(row(1))
        monkeypatch.setattr(os, "fsync", for_a_while)
    assert options(results.read(tmp_path)) == ["1"] and not refusals
    assert [record.message.split(":")[0].split(" ")[0] for record in caplog.records] == ["cannot", "wrote"]


def test_the_timer_says_once_that_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = threading.Semaphore(0)

    def full(*_: object) -> None:
        tried.release()
        raise OSError(errno.ENOSPC, "No space left on device")

    log = Log(tmp_path, flush_seconds=0.01)
    with monkeypatch.context() as patch:
        patch.setattr(parts.Folder, "write", full)
        log.append(row(1))
        for _ in range(4):
            assert tried.acquire(timeout=60)
    log.close()
    assert [record.message.count("disk is full") for record in caplog.records] == [1]
    assert options(results.read(tmp_path)) == ["1"]


WRITER = """
import sys, time
from raynas.results.log import Log
log = Log(sys.argv[1], float('inf'))
number = 0
while True:
    for _ in range(20):
        log.append({"architecture": {"block": f"option{number}"}, "status": "complete", "fidelity": 1, "score": 0.0})
        number += 1
    log.flush()
    print(number, flush=True)
    time.sleep(0.01)
"""


def test_every_flushed_row_survives_kill_9_and_readers_never_see_half_a_part(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    flushed = 0
    try:
        for reading in range(25):
            flushed = int(writer.stdout.readline())
            if reading == 10:
                results.compact(tmp_path)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # as a broken part would be
                seen = options(results.read(tmp_path))
            assert len(seen) >= flushed
            assert seen == [str(n) for n in range(len(seen))]
    finally:
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split("\n")
        writer.wait()
    flushed = max([flushed, *(int(line) for line in rest[:-1])])
    survived = options(results.read(tmp_path))
    assert len(survived) >= flushed >= 500
    assert len(survived) <= flushed + 20, "rows of a flush that did not end are there as a whole part or not at all"
    assert survived == [str(n) for n in range(len(survived))]


# Broken parts and compaction


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_corrupt_part_is_named_and_the_rest_is_read(tmp_path: Path, damage: str) -> None:
    with Log(tmp_path, MANUAL) as log:
        for number in range(3):
            log.append(row(number, worker="w" * 200))
            log.flush()
    broken = part_files(tmp_path)[1]
    data = bytearray(broken.read_bytes())
    if damage == "flipped":
        place = data.index(b"option1")
        data[place] ^= 0x01
    broken.write_bytes({"cut": data[: len(data) // 2], "flipped": data, "empty": b""}[damage])
    with pytest.warns(RuntimeWarning, match=broken.name):
        assert options(results.read(tmp_path)) == ["0", "2"]
    with pytest.warns(RuntimeWarning, match=broken.name):
        assert results.compact(tmp_path) == 2
    assert broken.exists(), "what cannot be read must not be deleted"
    with pytest.warns(RuntimeWarning, match=broken.name):
        assert options(results.read(tmp_path)) == ["0", "2"]


def test_compact_keeps_every_row_and_its_order(tmp_path: Path) -> None:
    with Log(tmp_path, MANUAL) as log:
        for number in range(6):
            log.append(row(number))
            log.flush()
        before = results.read(tmp_path)
        assert results.compact(tmp_path) == 6
        assert len(part_files(tmp_path)) == 1
        assert results.read(tmp_path).equals(before)
        assert results.compact(tmp_path) == 0
        log.append(row(6))
    assert options(results.read(tmp_path)) == [str(n) for n in range(7)]
    with Log(tmp_path, MANUAL) as log:
        log.append(row(7))
    assert results.compact(tmp_path) == 3
    assert options(pq.read_table(part_files(tmp_path)[0])) == [str(n) for n in range(8)]


@pytest.mark.parametrize("deletions", range(3))
def test_a_compaction_killed_at_any_moment_doubles_and_loses_nothing(tmp_path: Path, deletions: int) -> None:
    class Killed(BaseException):
        pass

    with Log(tmp_path, MANUAL) as log:
        for number in range(4):
            log.append(row(number))
            log.flush()
    expected = [str(n) for n in range(4)]

    class Dying:
        """The storage, until it has deleted so many files."""

        def __init__(self, storage: fs.FileSystem) -> None:
            self.storage, self.left = storage, deletions

        def __getattr__(self, name: str) -> object:
            return getattr(self.storage, name)

        def delete_file(self, path: str) -> None:
            if self.left == 0:
                raise Killed
            self.left -= 1
            self.storage.delete_file(path)

    for _ in range(2):  # the second one is killed while it cleans up after the first
        folder = parts.Folder(tmp_path)
        folder._storage = Dying(folder._storage)
        with pytest.raises(Killed):
            folder.compact()
        assert options(results.read(tmp_path)) == expected
        expected.append(str(len(expected)))
        table(row(len(expected) - 1), folder=tmp_path)
        assert options(results.read(tmp_path)) == expected
    results.compact(tmp_path)
    assert options(results.read(tmp_path)) == expected
    assert len(part_files(tmp_path)) == 1


def test_what_a_killed_writer_left_half_done_is_cleared_when_it_is_old(tmp_path: Path) -> None:
    table(row(1), folder=tmp_path)
    old, young = tmp_path / ".part-00000001-a.parquet.tmp", tmp_path / ".part-00000002-b.parquet.tmp"
    for file in (old, young):
        file.write_bytes(b"PAR1")
    os.utime(old, (time.time() - 3600,) * 2)
    results.compact(tmp_path)
    assert (old.exists(), young.exists()) == (False, True)


def test_a_missing_folder_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        results.read(tmp_path / "nowhere")
    empty = results.read(tmp_path)
    assert empty.schema.equals(results.SCHEMA)
    for rows in (results.latest(empty), results.leaderboard(empty)):
        assert rows.num_rows == 0
    assert results.pareto(empty, {"score": "max"}).num_rows == 0


def test_a_part_of_an_older_version_has_nulls_where_it_lacks_a_column(tmp_path: Path) -> None:
    table(row(1), folder=tmp_path)
    (file,) = part_files(tmp_path)
    pq.write_table(pq.read_table(file).drop_columns(["worker", "error"]), file)
    assert results.read(tmp_path).schema.names == results.SCHEMA.names
    assert results.read(tmp_path).column("worker").to_pylist() == [None]


# What the rows say


def test_latest_takes_the_highest_fidelity_and_the_newest_of_equals(tmp_path: Path) -> None:
    rows = table(
        row(0, fidelity=1, score=0.9, status="running"),
        row(1, fidelity=0, score=None, status="running"),
        row(0, fidelity=2, score=0.4, status="running"),
        row(0, fidelity=2, score=0.5),
        row(2, fidelity=1, score=0.3, status="running"),
        row(2, fidelity=2, score=math.nan, status="error", error="loss is NaN"),
        row(1, fidelity=0, score=None, status="error", error="out of memory"),
        folder=tmp_path,
    )
    newest = results.latest(rows)
    found = {o: (r["score"], r["status"]) for o, r in zip(options(newest), newest.to_pylist(), strict=True)}
    assert found == {"0": (0.5, "complete"), "1": (None, "error"), "2": (0.3, "running")}


def test_leaderboard_puts_full_scores_before_lucky_early_ones(tmp_path: Path) -> None:
    rows = table(
        row(0, fidelity=1, max_fidelity=3, score=0.99, status="stopped"),
        row(1, fidelity=3, max_fidelity=3, score=0.6),
        row(2, fidelity=3, max_fidelity=3, score=0.8),
        row(3, fidelity=3, max_fidelity=3, score=math.nan, status="error"),
        row(4, fidelity=3, max_fidelity=3, score=None, status="error"),
        folder=tmp_path,
    )
    assert options(results.leaderboard(rows)) == ["2", "1", "0"]
    assert options(results.leaderboard(rows, n=2, mode="min")) == ["1", "2"]
    with pytest.raises(ValueError, match="'best'"):
        results.leaderboard(rows, mode="best")


def test_pareto_by_hand(tmp_path: Path) -> None:
    rows = table(
        row(0, score=0.9, macs=100),
        row(1, score=0.8, macs=50),
        row(2, score=0.8, macs=60),  # as good as 1, dearer
        row(3, score=0.7, macs=50),  # as dear as 1, worse
        row(4, score=0.5, macs=10),
        row(5, score=0.5, macs=10),  # the same figures: neither beats the other
        row(6, score=0.99, macs=1, fidelity=1, max_fidelity=2, status="stopped"),
        row(7, score=None, macs=1, status="error"),
        folder=tmp_path,
    )
    assert options(results.pareto(rows, {"score": "max", "macs": "min"})) == ["0", "1", "4", "5"]
    assert options(results.pareto(rows, {"macs": "min"})) == ["4", "5"]


def test_pareto_of_three_objectives_agrees_with_the_definition(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 6, size=(120, 3))
    rows = table(
        *(row(n, score=float(a), macs=int(b), metrics={"latency": float(c)}) for n, (a, b, c) in enumerate(values)),
        folder=tmp_path,
    )
    costs = values * [-1, 1, 1]
    beaten = [any((other <= own).all() and (other < own).any() for other in costs) for own in costs]
    expected = {str(n) for n, is_beaten in enumerate(beaten) if not is_beaten}
    front = results.pareto(rows, {"score": "max", "macs": "min", "latency": "min"})
    assert set(options(front)) == expected
    assert 0 < len(expected) < 120


def test_pareto_names_what_it_does_not_know(tmp_path: Path) -> None:
    rows = table(row(0, metrics={"top5": 0.9, "note": "text"}), folder=tmp_path)
    with pytest.raises(ValueError, match=r"'speed'; there are: .*macs.*top5"):
        results.pareto(rows, {"speed": "max"})
    with pytest.raises(ValueError, match="'up'"):
        results.pareto(rows, {"score": "up"})
    with pytest.raises(ValueError, match="at least one objective"):
        results.pareto(rows, {})


@pytest.mark.parametrize("claims", ["others", "each other"])
def test_a_part_that_falsely_claims_to_replace_others_deletes_nothing(tmp_path: Path, claims: str) -> None:
    with Log(tmp_path, MANUAL) as log:
        for number in range(3):
            log.append(row(number))
            log.flush()
    names = [file.name for file in part_files(tmp_path)]
    forged = {"others": {2: names[:2]}, "each other": {0: names[:2], 1: names[:2]}}[claims]
    for number, replaced in forged.items():
        file = tmp_path / names[number]
        claim = {b"raynas.replaces": json.dumps(replaced).encode()}
        pq.write_table(pq.read_table(file).replace_schema_metadata(claim), file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results.compact(tmp_path)
        kept = options(results.read(tmp_path))
    if claims == "others":
        assert sorted(kept) == ["0", "1", "2"]
        assert any(names[2] in str(warning.message) for warning in caught)
    else:  # of two with as many rows, that name each other, one may be the other's merged form
        assert len(kept) == 2 and "2" in kept
