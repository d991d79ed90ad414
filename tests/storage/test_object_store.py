"""Runs in an object store: an S3 of our own on the loopback, which fails now and then."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from helpers import plain
from moto.server import ThreadedMotoServer
from pyarrow import fs
from raynas.trainables.from_scratch import FromScratch

from raynas import results
from raynas.cli.arguments import read_arguments
from raynas.cli.main import main
from raynas.config.loading import dump
from raynas.config.run import Config, SearchConfig
from raynas.exceptions import ConfigError, LeaseLostError
from raynas.runs.run import Run
from raynas.runs.warm_start import Source
from raynas.search_space.space import SearchSpace
from raynas.searchers import RandomSearch
from raynas.storage.locks import abandoned_folders, exclusive, process_folder
from raynas.storage.object_store import check_storage, fetch, newest, open_sync, unusable
from raynas.storage.recovery import recover
from raynas.storage.removal import MARKER
from raynas.storage.sync import StoreSync

SECRET = "secret-of-the-tests"


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    """The store."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def store(server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A place for runs in a bucket of the store."""
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key-of-the-tests",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / MARKER).touch()  # the folders of these tests are ours to remove
    storage, bucket = fs.FileSystem.from_uri("s3://runs?allow_bucket_creation=true&region=us-east-1")
    storage.create_dir(bucket)
    return f"s3://runs/{tmp_path.name}"


def put(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def found(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_changes_is_sent_and_brought_back(store: str, tmp_path: Path) -> None:
    here, there = (StoreSync(store, "run", tmp_path / name) for name in ("here", "there"))
    put(here.folder, config="a", deep__file="b", deep__half="c")
    half = (here.folder / "deep" / "half").rename(here.folder / "deep" / "half.part")
    here.push()
    half.unlink()
    put(there.folder, old="from another time")
    there.pull()
    assert found(there.folder) == {"config": "a", "deep/file": "b"} and there.uri == f"{store}/run"

    put(there.folder, config="aa")
    (there.folder / "deep" / "file").unlink()
    there.push()
    # Who keeps a part of it leaves what others wrote there alone.
    part = there.below("part").private()
    put(part.folder, more="d")
    part.push()
    there.push()
    here.pull()
    assert found(here.folder) == {"config": "aa", "part/more": "d"}
    before = (here.folder / "config").stat().st_ino
    here.pull()
    assert (here.folder / "config").stat().st_ino == before  # not brought again

    with pytest.raises(FileNotFoundError, match="holds stays as it is"):
        there.folder.rename(tmp_path / "taken")
        there.push()
    part.forget()
    here.pull()
    assert found(here.folder) == {"config": "aa"} and not part.folder.exists()

    assert open_sync(store, "another").folder.exists() is False and newest(store) is None
    put(here.folder, **{"config.yaml": "name: run"})
    here.push()
    assert newest(store) == "run" and newest(str(tmp_path / "nowhere")) is None


def test_a_store_that_fails_for_a_while_gets_everything_in_the_end(
    server: ThreadedMotoServer, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    mirror = StoreSync(store, "run", tmp_path / "here")
    put(mirror.folder, one="1")
    mirror.push()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    put(mirror.folder, two="2")
    (mirror.folder / "one").unlink()
    assert not mirror.try_push() and "it is tried again" in caplog.text and SECRET not in caplog.text
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setattr("raynas.storage.sync.EVERY", 0.1)
    mirror.start()
    other, deadline = StoreSync(store, "run", tmp_path / "there"), time.monotonic() + 60
    while time.monotonic() < deadline and (not other.folder.exists() or found(other.folder) != {"two": "2"}):
        other.pull()
    assert found(other.folder) == {"two": "2"}
    put(mirror.folder, last="3")
    mirror.close()
    other.pull()
    assert found(other.folder) == {"two": "2", "last": "3"}


KILLED = """
import os, pathlib, signal, sys
from raynas.storage.sync import StoreSync

mirror = StoreSync(sys.argv[1], "run")
mirror.pull()
(mirror.folder / "log").mkdir(parents=True, exist_ok=True)
(mirror.folder / "settings").write_text("old")
(mirror.folder / "log" / "0").write_text("sent")
mirror.start()
if sys.argv[2:] != ["looks"]:
    mirror.claim()
mirror.push()
os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
(mirror.folder / "settings").write_text("new")
(mirror.folder / "log" / "0").unlink()
(mirror.folder / "log" / "1").write_text("not sent")
assert not mirror.try_push()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("gone_on", [False, True])
def test_what_a_killed_driver_had_not_sent_is_not_lost(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, gone_on: bool
) -> None:
    for _ in range(2):  # also where the same number is given to a process again
        assert subprocess.run([sys.executable, "-c", KILLED, store]).returncode == -signal.SIGKILL
    elsewhere = StoreSync(store, "run", tmp_path / "elsewhere")
    elsewhere.pull()
    assert found(elsewhere.folder) == {"settings": "old", "log/0": "sent"}
    if gone_on:
        elsewhere.start()
        elsewhere.claim()
        put(elsewhere.folder, log__2="of another")
        elsewhere.close()
    mirror = open_sync(store, "run")
    assert mirror is not None
    kept = [path for path in (tmp_path / "cache").rglob("run-unsent-*")]
    if gone_on:
        assert found(mirror.folder) == {"settings": "old", "log/0": "sent", "log/2": "of another"}
        assert all(found(path).items() >= {"settings": "new", "log/1": "not sent"}.items() for path in kept)
        assert len(kept) == 2 and str(kept[0]) in caplog.text
    else:
        elsewhere.pull()
        # What was deleted here may have been deleted by anyone: there it stays.
        assert found(mirror.folder) == {"settings": "new", "log/0": "sent", "log/1": "not sent"}
        assert found(elsewhere.folder) == found(mirror.folder)
        assert len(kept) == 1, "of two that had not sent everything the last one is right"
    caches = {path.parent for path in (tmp_path / "cache").rglob("run")}
    assert caches == {mirror.folder.parent}, "the copies of the dead are still there"


def test_a_copy_that_is_half_gone_takes_nothing_from_the_store(store: str, tmp_path: Path) -> None:
    """A start that was itself killed while it removed the copy of another, or somebody who tidied up."""
    assert subprocess.run([sys.executable, "-c", KILLED, store]).returncode == -signal.SIGKILL
    (dead,) = (path for path in (tmp_path / "cache").rglob("run"))
    for path in dead.rglob("[!.]*"):
        if path.is_file():
            path.unlink()
    mirror = open_sync(store, "run")
    assert mirror is not None and found(mirror.folder) == {"settings": "old", "log/0": "sent"}


def test_who_comes_back_after_another_has_gone_on_overwrites_nothing(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raynas.storage.sync.EVERY", 0.1)
    cut_off, looks, other = (StoreSync(store, "run", tmp_path / name) for name in ("cut off", "looks", "other"))
    cut_off.pull()
    cut_off.start()
    cut_off.claim()
    put(cut_off.folder, settings="old", log__0="0")
    cut_off.push()
    trial = pickle.loads(pickle.dumps(cut_off.below("in-flight"))).below("a").private()
    put(trial.folder, weights="w")
    trial.push()
    looks.pull()
    looks.start()
    put(looks.folder, export="of one who only looks")
    looks.close()
    other.pull()
    other.start()
    put(cut_off.folder, log__1="1")
    cut_off.push()
    cut_off.claim()
    put(other.folder, more="not lost by what is brought")
    other.claim()
    assert found(other.folder).items() >= {"log/1": "1", "in-flight/a/weights": "w"}.items(), "what came meanwhile"
    put(trial.folder, weights="late")
    with pytest.raises(LeaseLostError):
        trial.try_push()
    trial.forget()
    put(cut_off.folder, settings="of the one that was cut off")
    (cut_off.folder / "log" / "0").unlink()
    deadline = time.monotonic() + 60
    with pytest.raises(LeaseLostError, match=rf"another process has resumed {store}/run: this one ends; .* {tmp_path}"):
        while time.monotonic() < deadline:
            time.sleep(0.05)
            cut_off.check()
    for refused in (cut_off.try_push, cut_off.claim):
        with pytest.raises(LeaseLostError):
            refused()
    cut_off.close()
    assert "another process has resumed" in caplog.text and "it is kept in" not in caplog.text
    put(other.folder, log__2="of the other")
    other.close()
    there = StoreSync(store, "run", tmp_path / "there")
    there.pull()
    logs = {"log/0": "0", "log/1": "1", "log/2": "of the other"}
    kept = {"settings": "old", "export": "of one who only looks", "in-flight/a/weights": "w"}
    assert found(there.folder) == {**kept, **logs, "more": "not lost by what is brought"}


NO_NAMES = ["..", ".", "", "../x", "../../../../x", "a/../../x", "/x", "a/b", "a\\b", "a\0b", "a\nb", "x" * 201]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_leads_nowhere_else(
    store: str, tmp_path: Path, no_ray: None, name: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By every way in which a run is named: refused in one line before anything is read or removed."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path, x="theirs", cache__x="theirs", cache__raynas__x="theirs")
    before = found(tmp_path)
    (tmp_path / "sent.yaml").write_text(json.dumps({"name": name, "storage_path": store}))
    reasons = ("one component of a path is legal", "there is no run to resume in", "is no storage")
    for storage in (store, str(tmp_path / "runs")):
        where = ["--space", "helpers.bare:DECISIONS", "search.trainable=helpers.plain:Told", "--storage-path", storage]
        ways = [
            [*where, "--name", name], [*where, "--name", name, "--dry-run"], ["doctor", *where, "--name", name],
            ["report", *where, "--name", name], [*where, "--config", "sent.yaml"],
            *([[*where, "--resume", name], ["report", *where, "--resume", name]] if name not in (".", "..") else []),
        ]  # fmt: skip
        ways += [["--resume", f"{store}/{quote(name, safe=safe)}"] for safe in ("/", "")]
        for words in ways:
            assert main(words) == 2, words
            said = capsys.readouterr().err
            assert said.count("\n") == 1 and any(why in said for why in reasons), (words, said)
        warm = Config(search={"warm_start": name}, storage_path=storage)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"search.warm_start.*one component of a path is legal"):
            Source.of(warm, tmp_path / "none", SearchSpace({"a": ("b",)}), "max")
    for make in (lambda: open_sync(store, name), lambda: fetch(store, name), lambda: Config(name=name)):
        with pytest.raises(ValueError, match="one component of a path is legal"):
            make()
    with pytest.raises(ConfigError, match="one component of a path is legal"):
        StoreSync(store, f"run/{name.replace('a/b', 'a//b')}")
    assert {key: text for key, text in found(tmp_path).items() if key in before} == before


@pytest.mark.parametrize("name", ["\u00fcn\u00efc\u00f6d\u00e9 \u540d", "a b", "x#y?z=%41", "a&b+c", "x" * 200])
def test_other_names_are_names(store: str, tmp_path: Path, no_ray: None, name: str) -> None:
    mirror = StoreSync(store, name, tmp_path / "here")
    put(mirror.folder, **{"config.yaml": dump(Config(name=name, storage_path=store))})
    mirror.push()
    assert newest(store) == name
    for words in (["--resume"], ["--resume", name], ["--resume", mirror.uri], ["--name", name, "--resume"]):
        assert read_arguments([*words, "--storage-path", store])[1].name == name
    storage, path = fs.FileSystem.from_uri(mirror.uri)
    assert storage.get_file_info(f"{path}/config.yaml").type == fs.FileType.File
    local = Config(name=name, storage_path=str(tmp_path / "runs"))
    put(tmp_path / "runs" / name, **{"config.yaml": dump(local)})
    assert read_arguments(["--resume", "--storage-path", str(tmp_path / "runs")])[1].name == name


def test_keys_of_the_store_lead_nowhere_else(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, x="theirs")
    mirror = StoreSync(store, "run", tmp_path / "a" / "here")
    put(mirror.folder, fine="1")
    mirror.push()
    there = mirror._objects

    def hostile(storage: object, root: str) -> dict[str, object]:
        """Keys that pyarrow would have to hand on."""
        info = next(iter(there(storage, root).values()))
        names = (
            "../../x",
            "..",
            "a/../../../x",
            f"/{tmp_path}/x",
            "",
            "a//b",
            "nul\0",
            "a\nb",
            "x" * 300,
            ".",
            "c:\\x",
        )
        infos = [Info(f"{root}/{name}", fs.FileType.File, info.mtime_ns, info.size) for name in names]
        return StoreSync._objects(mirror, Lists([*infos, info]), root)

    monkeypatch.setattr(mirror, "_objects", hostile)
    mirror.pull()
    assert found(mirror.folder) == {"fine": "1"} and (tmp_path / "x").read_text() == "theirs"
    assert "is no name of a file here: it is left there" in caplog.text


class Info(NamedTuple):
    path: str
    type: fs.FileType
    mtime_ns: int
    size: int


class Lists:
    """A store that says to hold these objects."""

    def __init__(self, infos: list[object]) -> None:
        self.infos = infos

    def get_file_info(self, selector: object) -> list[object]:
        return self.infos


def test_nothing_is_removed_where_nothing_is_marked(store: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A mirror of somebody's folder, by whatever fault."""
    theirs = tmp_path_factory.mktemp("theirs")
    put(theirs, thesis="theirs")
    for act in (lambda m: m.pull(), lambda m: m.forget(), lambda m: m._keep_aside()):
        with pytest.raises(OSError, match="RayNAS has not made the folder"):
            act(StoreSync(store, "run", theirs))
    assert found(theirs) == {"thesis": "theirs"}


def test_a_copy_that_was_deleted_is_made_again(store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also where the run has written into a new folder meanwhile: nothing is deleted in the store."""
    driver = StoreSync(store, "run", tmp_path / "here")
    driver.pull()
    driver.start()
    driver.claim()
    put(driver.folder, settings="s", log__0="0")
    driver.push()
    for number in (1, 2):
        shutil.rmtree(driver.folder)
        if number == 1:
            put(driver.folder, log__1="1")
        driver.push()
    driver.close()
    there = StoreSync(store, "run", tmp_path / "there")
    there.pull()
    assert {"settings": "s", "log/0": "0", "log/1": "1"}.items() <= found(there.folder).items()
    assert {"settings": "s", "log/0": "0", "log/1": "1"}.items() <= found(driver.folder).items()
    assert "somebody has deleted" in caplog.text


def searching(store: str, folder: Path, num_samples: int) -> tuple[Run, Callable[[], None]]:
    """A run in the store, and what waits until it scores."""
    (processes := folder / "processes").mkdir()
    search = SearchConfig(
        num_samples=num_samples, slices=1, scheduler="none", trainable_args={"folder": str(processes)}
    )
    config = Config(search=search, storage_path=store, name="run")
    space = SearchSpace({f"d{place}": tuple("abcd") for place in range(6)})

    def scores() -> None:
        deadline = time.monotonic() + 60
        while not any(processes.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.2)

    return Run(config, space, None, RandomSearch, plain.Told), scores


@pytest.mark.usefixtures("ray_session")
def test_a_search_goes_on_while_the_store_fails(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, scores = searching(store, tmp_path, 120)
    assert run.context.storage.sync is not None
    good = os.environ["AWS_ENDPOINT_URL"]

    def fail() -> None:
        scores()
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        deadline = time.monotonic() + 60
        while "it is tried again" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.1)
        monkeypatch.setenv("AWS_ENDPOINT_URL", good)

    failing = threading.Thread(target=fail)
    failing.start()
    run.search()
    failing.join()
    run.send()
    run.close()
    run.context.storage.sync.close()
    assert "it is tried again" in caplog.text
    rows = results.read(f"{store}/run/scored.parquet").to_pylist()
    assert len(rows) == len({row["key"] for row in rows}) == 120


@pytest.mark.usefixtures("ray_session")
def test_a_search_that_another_has_gone_on_with_ends(store: str, tmp_path: Path) -> None:
    """Another claims the run while it searches."""
    run, scores = searching(store, tmp_path, 2000)

    def go_on() -> None:
        scores()
        other = StoreSync(store, "run", tmp_path / "other")
        other.start()
        other.claim()
        other.close()

    other = threading.Thread(target=go_on)
    other.start()
    with pytest.raises(LeaseLostError, match=f"^another process has resumed {store}/run"):
        run.search()
    other.join()
    run.close()
    assert run.context.storage.sync is not None and len(results.read(run.folder / "scored.parquet")) < 2000
    with pytest.raises(LeaseLostError):
        run.context.begin()  # it does not take it back
    run.context.storage.sync.close()


@pytest.mark.parametrize("gone_on", [False, True])
def test_what_a_killed_command_that_goes_on_with_nothing_had_not_sent_is_not_lost(
    store: str, tmp_path: Path, gone_on: bool
) -> None:
    """An export, for example."""
    for name in ("before", "after")[: 1 + gone_on]:
        driver = StoreSync(store, "run", tmp_path / name)
        driver.pull()
        driver.start()
        driver.claim()
        put(driver.folder, **{name: ""})
        driver.close()
        if name == "before":
            assert subprocess.run([sys.executable, "-c", KILLED, store, "looks"]).returncode == -signal.SIGKILL
    mirror = open_sync(store, "run")
    kept = list((tmp_path / "cache").rglob("run-unsent-*"))
    assert mirror is not None and len(kept) == gone_on
    assert ("log/1" in found(mirror.folder)) != gone_on and "before" in found(mirror.folder)


def test_a_driver_that_is_at_work_in_this_process_has_left_nothing(store: str, tmp_path: Path) -> None:
    driver = StoreSync(store, "run", tmp_path / "copy")
    driver.start()
    put(driver.folder, settings="1")
    driver.push()
    put(driver.folder, settings="2")  # the timer sends it later
    recover(StoreSync(store, "run", tmp_path / "copy"))
    assert found(driver.folder)["settings"] == "2", "the copy of a driver at work is left alone"
    driver.close()
    put(driver.folder, settings="3")
    recover(StoreSync(store, "run", tmp_path / "copy"))
    assert not driver.folder.exists(), "what a driver that has ended left is uploaded, and the copy removed"
    again = StoreSync(store, "run", tmp_path / "other")
    again.pull()
    assert found(again.folder)["settings"] == "3"


def test_who_writes_nothing_takes_nothing_over(store: str, tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, store]).returncode == -signal.SIGKILL
    looks = StoreSync(store, "run", tmp_path / "looks")
    looks.pull()
    looks.start()
    looks.close()
    mirror = open_sync(store, "run")
    assert mirror is not None and found(mirror.folder)["log/1"] == "not sent"


HOLDS = """
import pathlib, sys, time
from raynas.storage.locks import lock_folder

with lock_folder(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


STARTS = """
import os, signal, sys
import raynas.cli.main
raynas.cli.main.connect = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
raynas.cli.main.main(sys.argv[1:])
"""


def test_a_run_that_was_killed_while_ray_started_is_in_the_store_and_goes_on(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same line every time, on another machine, with another cache."""
    line = [
        *("--resume", "auto", "--name", "mine", "--storage-path", store, "--space", "spaces.nasbench201:DECISIONS"),
        *("search.trainable=helpers.plain:Counting", "seed=7"),
    ]
    done = subprocess.run([sys.executable, "-c", STARTS, *line], env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)})
    assert done.returncode == -signal.SIGKILL
    assert newest(store) == "mine"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    config = read_arguments(line)[1]
    assert (config.name, config.seed) == ("mine", 7)
    with pytest.raises(ConfigError, match="no run to resume"):
        read_arguments(["--resume", "other", "--storage-path", store])
    assert read_arguments(["--resume", "--storage-path", store, "--trust"])[1].seed == 7


class Works:
    """What a run is to its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @exclusive
    def work(self, inside: Callable[[], object] = list) -> object:
        return inside()


def test_two_processes_do_not_write_into_one_run(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDS, str(tmp_path / "run")]
    first, second = Works(tmp_path / "run"), Works(tmp_path / "run")

    def others() -> str:
        first.work()  # the same process may, and its end changes nothing
        return subprocess.run(words, capture_output=True, text=True).stderr

    with ThreadPoolExecutor(1) as threads:
        said = threads.submit(second.work, others).result()
    assert f"process {os.getpid()} on {socket.gethostname()} is at work on {tmp_path / 'run'}: wait for" in str(said)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"process {other.pid} on"):
            first.work()
        other.kill()
    first.work()


def test_a_folder_that_cannot_be_locked_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(file: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert Works(tmp_path).work() == [] and "cannot be locked" in caplog.text
    own = process_folder(tmp_path / "copies")
    assert own == process_folder(tmp_path / "copies") and abandoned_folders(tmp_path / "copies") == []
    monkeypatch.undo()
    assert abandoned_folders(tmp_path / "copies") == [own]


def test_storage_that_cannot_be_used_is_told_in_one_line(
    store: str, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uri, message in {
        "ftp://host/runs": "is no storage; legal: a folder that all nodes mount, s3://bucket/path",
        "s3://": "is no storage",
        "s3:/x": "is no storage; legal: .*s3://bucket/path",
        "s3//b": "is no storage",
        "gs:b/x": "is no storage",
        "s3:/key:word@bucket/x": "holds credentials",
        "s3://key:word@bucket/x": "holds credentials",
        "s3://key:wo/rd@bucket/x": "holds credentials",
        "http://key:word@minio:9000/x": "holds credentials",
        "s3://nobody/runs": "cannot write to s3://nobody/runs: .*bucket does not exist",
    }.items():
        with pytest.raises(ConfigError, match=message) as error:
            read_arguments(["--storage-path", uri, "--name", "x"])
        assert "\n" not in str(error.value) and SECRET not in str(error.value) and "word" not in str(error.value)
    assert unusable(store) is None
    with pytest.raises(ConfigError, match=f"there is no run to resume in {store}: run search first"):
        read_arguments(["--storage-path", store, "--resume"])
    monkeypatch.setattr("raynas.storage.object_store.TIMEOUT", 0.5)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="no answer within"):
        check_storage(store)


def test_a_process_that_ends_leaves_weights_that_nobody_has_noted_yet(store: str, tmp_path: Path) -> None:
    last, earlier = (StoreSync(store, f"run/in-flight/{name}").private() for name in ("last", "earlier"))
    for mirror in (last, earlier):
        put(mirror.folder, weights="w")
        mirror.push()
    trial = object.__new__(FromScratch)
    trial.sync, trial._ended = last, [(time.monotonic(), earlier.folder, earlier)]
    trial.cleanup()
    assert not last.folder.exists() and not earlier.folder.exists()
    there = StoreSync(store, "run", tmp_path / "there")
    there.pull()
    assert found(there.folder) == {"in-flight/last/weights": "w", "in-flight/earlier/weights": "w"}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lost_head_costs_nothing_that_was_sent(store: str, tmp_path: Path) -> None:
    """The driver is killed and its machine is lost; another one goes on from the store alone."""
    words = [
        *(
            "--space",
            "helpers.tiny:space",
            "--data",
            "helpers.tiny:arrays",
            "search.trainable=trainables.from_scratch:FromScratch",
        ),
        *("search.epochs=3", "search.scheduler=none", "search.max_concurrent=2", "data.limit=600"),
        *("search.num_samples=5", "train.epochs=1", "train.workers=1", "retrain.workers=1", "after=[retrain,report]"),
    ]

    def launch(*more: str, cache: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "raynas.launch", *more],
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / cache)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    log, deadline, rows = f"{store}/run/scored.parquet", time.monotonic() + 200, []
    first = launch(*words, "--storage-path", store, "--name", "run", cache="lost")
    while len({row["key"] for row in rows if row["status"] == "complete"}) < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
        try:
            rows = results.read(log).to_pylist()
        except FileNotFoundError:
            assert first.poll() is None, first.communicate()[0]
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    rows = results.read(log).to_pylist()

    second = launch("--trust", "--resume", f"{store}/run", cache="fresh")
    said = second.communicate(timeout=200)[0]
    assert second.returncode == 0, said
    after = results.read(log).to_pylist()
    told = {(row["key"], row["fidelity"], row["score"]) for row in after}
    assert {(row["key"], row["fidelity"], row["score"]) for row in rows} <= told
    reports = Counter((row["key"], row["fidelity"]) for row in after if row["status"] in ("running", "complete"))
    assert len({key for key, _ in reports}) == 5 and set(reports.values()) == {1}
    assert sum(row["status"] == "complete" for row in after) == 5
    storage, path = fs.FileSystem.from_uri(f"{store}/run")
    names = {info.path[len(path) + 1 :] for info in storage.get_file_info(fs.FileSelector(path, recursive=True))}
    winner = StoreSync(store, "run", tmp_path / "look")
    winner.pull()
    best = json.loads((winner.folder / "leaderboard.json").read_text())[0]["key"]
    assert {"config.yaml", "report.html", f"retrain/{best}/result.json"} <= names
    assert not any(name.startswith("in-flight/") and name.endswith(".safetensors") for name in names)
    assert f"everything is kept in {store}/run" in said and SECRET not in said
    assert not any(SECRET in path.read_text(errors="replace") for path in winner.folder.rglob("*") if path.is_file())
