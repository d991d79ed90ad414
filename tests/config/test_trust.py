"""What a file names is run only if it is RayNAS' own, or somebody vouches for it; what is Python's own never."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raynas.cli.arguments import read_arguments
from raynas.cli.main import main
from raynas.config.loading import dump, load, parse, read
from raynas.config.run import Config
from raynas.config.trust import foreign, settings
from raynas.exceptions import ConfigError
from raynas.report.page import write_report
from raynas.results.log import Log
from raynas.runs.factory import prepare
from raynas.utils.imports import resolve

pytestmark = pytest.mark.usefixtures("no_ray")
EVIL = "evil_package.inside:run"
PLANTED: list[tuple[str, Any]] = [
    ("space", EVIL),
    ("space_args.canonical", EVIL),
    ("space_args.alike", EVIL),
    ("space_args.graph", EVIL),
    ("space_args.notation", EVIL),
    ("data.name", EVIL),
    ("search.trainable", EVIL),
    ("search.trainable_args.score", EVIL),
    ("search.trainable_args.score", ["naswot", EVIL]),
    ("search.trainable_args.decoder", EVIL),
    ("search.filter.score", EVIL),
    ("search.method", EVIL),
    ("search.loggers", ["tensorboard", EVIL]),
    ("truth.table.decoder", EVIL),
]


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that leaves a file behind when it is imported; returns that file."""
    package, mark = tmp_path / "path" / "evil_package", tmp_path / "imported"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    (package / "inside.py").write_text("def run(*given, **more):\n    raise ValueError('it was called')\n")
    monkeypatch.syspath_prepend(str(package.parent))
    yield mark
    for name in [name for name in sys.modules if name.startswith("evil_package")]:
        del sys.modules[name]


def tree(setting: str, value: Any) -> dict[str, Any]:
    """The nested settings with this one."""
    *above, last = setting.split(".")
    made: dict[str, Any] = {last: value}
    for name in reversed(above):
        made = {name: made}
    return made


def keep(folder: Path, setting: str, value: Any) -> Path:
    """A run's folder with this setting."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(parse(tree(setting, value))))
    return folder


@pytest.mark.parametrize("command", ["search", "train-supernet", "retrain", "export", "rank", "doctor"])
def test_no_command_runs_what_a_folder_names(command: str, evil: Path, tmp_path: Path, capsys: Any) -> None:
    folder = keep(tmp_path / "runs" / "got", "space", EVIL)
    assert main([command, "--resume", str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{folder}/config.yaml names code that is not RayNAS' own" in said
    assert f"space = {EVIL}" in said and f"name it yourself, space={EVIL}, or" in said
    assert f"that is: python -m raynas.launch {command} --resume {folder} --trust" in said
    assert not evil.exists()


@pytest.mark.parametrize(("setting", "value"), PLANTED, ids=[f"{s}-{type(v).__name__}" for s, v in PLANTED])
def test_nothing_that_a_file_names_is_imported(
    setting: str, value: Any, evil: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = keep(tmp_path / "got", setting, value)
    for words in (["--resume", str(folder)], ["--config", str(folder / "config.yaml"), "--dry-run"]):
        assert main(words) == 2
        assert (
            f"config.yaml names code that is not RayNAS' own, and would run it: {setting} = " in capsys.readouterr().err
        )
    with pytest.raises(ConfigError, match=re.escape(f"{setting} = ")):
        prepare(folder / "config.yaml")
    with pytest.raises(ConfigError, match="in Python trust=True"):
        load(folder / "config.yaml")
    assert foreign(read(folder / "config.yaml")) == {setting: value}
    assert not evil.exists()


@pytest.mark.parametrize("vouched", [["--trust"], ["--space", EVIL], [f"space={EVIL}"]])
def test_what_somebody_vouches_for_is_run(vouched: list[str], evil: Path, tmp_path: Path, capsys: Any) -> None:
    folder = keep(tmp_path / "got", "space", EVIL)
    assert main(["--resume", str(folder), *vouched]) == 2
    assert "cannot be built: ValueError: it was called" in capsys.readouterr().err and evil.exists()


def test_what_is_named_does_not_vouch_for_the_rest(evil: Path, tmp_path: Path, capsys: Any) -> None:
    folder = keep(tmp_path / "got", "search.loggers", [EVIL])
    assert main(["--resume", str(folder), "--space", "evil_package.inside:other"]) == 2
    assert f"search.loggers = {EVIL}" in capsys.readouterr().err and not evil.exists()


@pytest.mark.usefixtures("evil")
def test_from_python_settings_of_ones_own_are_run_and_those_of_a_file_on_request(tmp_path: Path) -> None:
    folder = keep(tmp_path / "got", "space", EVIL)
    with pytest.raises(ConfigError, match="it was called"):
        prepare(Config(space=EVIL))
    with pytest.raises(ConfigError, match="it was called"):
        prepare(folder / "config.yaml", trust=True)
    assert load(folder / "config.yaml", trust=True).space == load(folder / "config.yaml", [f"space={EVIL}"]).space


def test_reading_a_folder_runs_nothing(evil: Path, tmp_path: Path) -> None:
    folder = keep(tmp_path / "got", "space", EVIL)
    with Log(folder / "scored.parquet") as log:
        log.append({"architecture": {"a": "x"}, "status": "complete", "fidelity": 1, "score": 0.5})
    assert main(["report", "--resume", str(folder)]) == 0
    page = write_report(folder).read_text()
    assert "--resume" in page and page.count(" --trust") == 2 and not evil.exists()


@pytest.mark.parametrize("words", [["--space", "{}"], ["search.trainable={}"], ["search.method={}"], ["--data", "{}"]])
@pytest.mark.parametrize("name", ["os:system", "builtins:exec", "subprocess:run", "posix:system", "os.path:join"])
def test_what_is_pythons_own_is_never_run(words: list[str], name: str, tmp_path: Path, capsys: Any) -> None:
    line = [word.format(name) for word in words]
    assert main([*line, "--trust", "--dry-run", "--storage-path", str(tmp_path)]) == 2
    assert f"{name!r} belongs to Python itself" in capsys.readouterr().err


def test_neither_is_what_a_package_has_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lending.py").write_text("from os import system\nfrom subprocess import Popen\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("system", "Popen"):
        with pytest.raises(ConfigError, match="belongs to Python itself"):
            resolve(f"lending:{name}", "space")


@pytest.mark.parametrize(
    "name",
    [
        "raynas.launch:main",  # would read a command line of the file's making
        "raynas.storage.atomic:replace_text",  # would write any file
        "raynas.utils.imports:resolve",
        "spaces.nasbench201:_relu_conv_bn",
        "spaces.darts:Choice",  # stands there, and was written elsewhere
        "spacesuit:evil",
        "torch.utils.cpp_extension:load_inline",
    ],
)
def test_a_file_may_name_what_is_made_to_be_named_and_nothing_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not RayNAS' own"):
        load(keep(tmp_path / "got", "space", name) / "config.yaml")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("space", "spaces.shufflenet:spos_small"),
        ("space", "spaces.nasbench201:DECISIONS"),
        ("space", "spaces.nasbench201:nothing_of_that_name"),
        ("space_args", {"graph": "raynas.architecture:chain", "canonical": "spaces.nasbench201:canonical_form"}),
        ("search.trainable", "trainables.from_scratch:FromScratch"),
        ("search.trainable_args", {"encoded": "text: x", "decoder": "spaces.nasbench201:from_string", "file": "C:x"}),
        ("search.method", "raynas.searchers:Evolution"),
        ("search.loggers", ["tensorboard", "wandb"]),
        ("search.filter.score", "naswot"),
    ],
)
def test_what_is_raynas_own_needs_nobody(setting: str, value: Any, tmp_path: Path) -> None:
    folder = keep(tmp_path / "got", setting, value)
    assert load(folder / "config.yaml") == read(folder / "config.yaml")


def test_a_warm_start_imports_nothing_that_the_other_folder_names(evil: Path, tmp_path: Path) -> None:
    other = keep(tmp_path / "other", "search.trainable", EVIL)
    with Log(other / "scored.parquet") as log:
        for option in ("k3", "k5"):
            log.append({"architecture": {"a": option}, "status": "complete", "fidelity": 1, "score": 0.5})
    words = ["search.trainable=helpers.plain:Told", f"search.warm_start={other}", f"storage_path={tmp_path}"]
    space = {"a": ("k3", "k5")}
    with pytest.raises(ConfigError, match=re.escape("other/config.yaml names code that is not RayNAS' own")):
        prepare(load(None, words), space=space)
    assert not evil.exists()
    with pytest.raises(ConfigError, match="is no class of ray"):  # trusted: looked at, and found wrong
        prepare(load(None, words), space=space, trust=True)
    assert evil.exists()


def test_a_run_of_ones_own_package_is_told_with_trust(tmp_path: Path) -> None:
    words = ["--resume", str(keep(tmp_path / "mine", "space", "helpers.tiny:space"))]
    with pytest.raises(ConfigError, match="--trust"):
        read_arguments(words)
    assert (
        read_arguments([*words, "--trust"])[1].space
        == read_arguments([*words, "--space", "helpers.tiny:space"])[1].space
    )


def test_all_places_that_turn_names_into_code_are_looked_at(repository: Path) -> None:
    """A new call of ``resolve`` fails here until its setting is in ``raynas.config.trust.settings``."""
    calls = set()
    for path in [
        *repository.glob("raynas/**/*.py"),
        *repository.glob("trainables/*.py"),
        *repository.glob("spaces/*.py"),
    ]:
        if path.name not in ("imports.py", "trust.py"):
            for call in re.findall(r"\bresolve\(\w[^,()]*, ([^)]+)\)", path.read_text(encoding="utf-8")):
                calls.add((path.stem, call.strip('"')))
    assert calls == {
        ("factory", "space"), ("factory", "search.method"), ("factory", "search.trainable"), ("factory", "data"),
        ("base", "data.task"),  # what a loader of the user has returned names it
        ("loading", "data.name"), ("problem", 'f"space_args.{name}'), ("tabular", "search.trainable_args.decoder"),
        ("evaluator", "setting"), ("evaluator", "score"), ("loggers", "search.loggers"),
        ("warm_start", "search.trainable"), ("objective", "search.trainable"),
    }  # fmt: skip
    for setting, value in PLANTED:
        assert setting in settings(parse(tree(setting, value)))
