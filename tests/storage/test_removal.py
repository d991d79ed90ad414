"""What may be removed: what lies below a folder that RayNAS has made and marked, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from raynas.exceptions import NotOwnedError
from raynas.storage.removal import (
    MARKER,
    adopt,
    free_name,
    move,
    own,
    owned,
    remove_file,
    remove_tree,
    scratch,
)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    own(tmp_path / "ours")
    (tmp_path / "ours" / "deep").mkdir()
    (tmp_path / "ours" / "deep" / "file").write_text("ours")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("theirs")
    return tmp_path / "ours"


def test_only_what_this_made_is_marked(tmp_path: Path, ours: Path) -> None:
    own(tmp_path / "theirs")
    own(ours / "below" / "more")
    assert sorted(path.parent.name for path in tmp_path.rglob(MARKER)) == ["ours"]
    assert owned(ours) and owned(ours / "below" / "more" / "x") and not owned(tmp_path / "theirs" / "file")
    adopt(tmp_path / "theirs")
    assert not owned(tmp_path / "theirs"), "somebody's folder with something in it"
    (tmp_path / "empty").mkdir()
    (tmp_path / "theirs" / "config.yaml").write_text("name: of an older version")
    for name in ("empty", "theirs"):
        adopt(tmp_path / name)
        assert owned(tmp_path / name)


@pytest.mark.parametrize("act", [remove_file, remove_tree, lambda path: move(path, path.with_name("moved"))])
@pytest.mark.parametrize(
    "path", ["../theirs/file", "../theirs", "deep/../../theirs/file", "out/file", "..", "deep/..", "deep/../..", "."]
)
def test_no_way_leads_out(ours: Path, act: Callable[[Path], None], path: str) -> None:
    (ours / "out").symlink_to(ours.parent / "theirs")
    place = ours / path if path != "." else ours.parent
    with pytest.raises(NotOwnedError, match=MARKER):
        act(place)
    assert (ours.parent / "theirs" / "file").read_text() == "theirs" and (ours / "deep" / "file").exists()


def test_links_are_removed_and_what_they_lead_to_stays(ours: Path) -> None:
    theirs = ours.parent / "theirs"
    (ours / "deep" / "link").symlink_to(theirs)
    (ours / "link").symlink_to(theirs)
    (ours / "file").symlink_to(theirs / "file")
    (theirs / "link").symlink_to(ours)
    for path in (theirs / "link",):
        with pytest.raises(NotOwnedError):
            remove_tree(path)
    remove_tree(ours / "link")
    remove_file(ours / "file")
    remove_tree(ours)
    assert not ours.exists() and (theirs / "file").read_text() == "theirs"
    remove_tree(ours)
    remove_file(ours / "file")


def test_a_mark_is_a_file(tmp_path: Path, ours: Path) -> None:
    (tmp_path / "theirs" / MARKER).symlink_to(ours / MARKER)
    with pytest.raises(NotOwnedError):
        remove_file(tmp_path / "theirs" / "file")


def test_a_folder_that_was_deleted_is_marked_again(ours: Path) -> None:
    remove_tree(ours)
    own(ours)
    (ours / MARKER).unlink()
    ours.rmdir()
    os.makedirs(ours / "made by another")
    own(ours)
    assert owned(ours / "made by another")


def test_nothing_is_moved_onto_something(ours: Path) -> None:
    (ours / "other").write_text("other")
    with pytest.raises(FileExistsError):
        move(ours / "deep" / "file", ours / "other")
    assert free_name(ours / "other").name == "other-0"
    move(ours / "other", free_name(ours / "other"))
    assert free_name(ours / "other").name == "other-1"


def test_a_scratch_folder_is_private_and_goes(tmp_path: Path) -> None:
    with scratch("x-", tmp_path) as folder:
        (folder / "a").mkdir()
        (folder / "a" / "b").write_text("c")
        assert folder.stat().st_mode & 0o077 == 0 and folder.parent == tmp_path
    assert not any(tmp_path.iterdir())
