"""The documentation: it builds without warnings, and the commands, settings and code in it are real."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raynas.cli.arguments import COMMANDS, read_arguments
from raynas.config.loading import parse
from raynas.config.run import Config

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "cluster").glob("*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
    ]
)
PROGRAMS = (
    r"(?:\S*python|raynas/launch\.py --|python) -m raynas\.launch",
    r"raynas",
    r"ray submit \S+ raynas/launch\.py --",
)
PLACEHOLDERS = ("SETTINGS", "...")
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(document: Path, language: str) -> Iterator[str]:
    """The code blocks of a language in a document."""
    text = document.read_text(encoding="utf-8")
    yield from re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[list[str]]:
    """The words of every call of RayNAS in shell lines: what follows the name of the program."""
    for line in text.replace("\\\n", " ").splitlines():
        for program in PROGRAMS:
            found = re.search(rf"(?:^|[\s;&'`])(?:{program})(?=\s|$)(.*)", line)
            if found is None or "$(" in line:
                continue
            rest = found[1].split("'")[0] if line[: found.start(1)].count("'") % 2 else found[1]
            words = shlex.split(re.split(r"\s(?:;|&&|\||#)|;\s", rest)[0], comments=True)
            yield [word for word in words if word not in PLACEHOLDERS]
            break


@pytest.fixture(scope="module")
def known_flags() -> set[str]:
    """The flags of the command line, as its help lists them."""
    done = subprocess.run(
        [sys.executable, "-m", "raynas.launch", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", done.stdout))


def unknown_setting(name: str) -> str | None:
    """The part of a dotted name at which the tree of settings has nothing; None if all of it is known."""
    node: Any = Config()
    for part in name.split("."):
        if isinstance(node, dict):
            return None  # free keys: arguments of a trainable, a searcher or a space
        fields = {field.name for field in dataclasses.fields(node)} if dataclasses.is_dataclass(node) else set()
        if part not in fields:
            return part
        node = getattr(node, part)
    return None


@each_document
def test_commands_have_known_flags_and_settings(document: Path, known_flags: set[str]) -> None:
    for block in blocks(document, "bash"):
        for words in commands(block):
            for place, word in enumerate(words):
                if word.startswith("-"):
                    assert word.partition("=")[0] in known_flags, f"unknown flag in: {' '.join(words)}"
                elif re.match(r"[a-z_][\w.]*=", word):
                    assert unknown_setting(word.partition("=")[0]) is None, f"unknown setting in: {' '.join(words)}"
                    parse(_tree(word))
                elif place == 0:
                    assert word in COMMANDS, f"unknown command in: {' '.join(words)}"


def _tree(word: str) -> dict[str, Any]:
    """A ``key=value`` word as nested dictionaries; numbers such as 1e6 are read as YAML 1.2 does."""
    name, _, text = word.partition("=")
    value: Any = yaml.safe_load(text)
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d*)?e\d+", value):
        value = float(value)
    for part in reversed(name.split(".")):
        value = {part: value}
    return dict(value)


@each_document
def test_settings_in_the_text_are_known(document: Path) -> None:
    groups = "|".join(field.name for field in dataclasses.fields(Config) if field.name.isidentifier())
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`\n]+)`", text):
        for name in re.findall(rf"(?:^|[\s\"])((?:{groups})(?:\.[a-z_]+)+)(?=[=\s\"]|$)", code):
            wrong = None if name.endswith((".json", ".jsonl")) else unknown_setting(name)
            assert wrong is None, f"{document.name} names the setting {name}, but there is no {wrong!r}"


@each_document
def test_python_imports_what_is_there(document: Path) -> None:
    for block in blocks(document, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "raynas":
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("python -m raynas.launch rank a=1 # why", [["rank", "a=1"]]),
        ("until python -m raynas.launch --name x; do sleep 3; done", [["--name", "x"]]),
        ("ray exec c.yaml 'python -m raynas.launch --resume m b=2'", [["--resume", "m", "b=2"]]),
        ("ray submit c.yaml raynas/launch.py -- --name x", [["--name", "x"]]),
        ("pip install raynas", [[]]),
        ("pytest", []),
    ],
)
def test_commands_are_found(line: str, words: list[list[str]]) -> None:
    assert list(commands(line)) == words


def test_a_misspelt_setting_is_found() -> None:
    assert unknown_setting("train.epochs") is None and unknown_setting("search.method_args.any") is None
    assert unknown_setting("train.epohcs") == "epohcs"


def test_every_flag_and_command_is_documented(known_flags: set[str]) -> None:
    text = (ROOT / "docs/reference/command_line.md").read_text(encoding="utf-8")
    missing = [flag for flag in known_flags - {"-h", "--help", "-m"} if not re.search(rf"`{flag}[`\s]", text)]
    assert not missing, f"docs/reference/command_line.md lacks {', '.join(sorted(missing))}"
    assert not [name for name in COMMANDS if f"`{name}`" not in text]


def test_the_help_ends_without_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_arguments(["--help"])
    assert ended.value.code == 0 and "--resume" in capsys.readouterr().out


def test_every_setting_has_a_description() -> None:
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    try:
        generated = importlib.import_module("generated")
    finally:
        sys.path.pop(0)
    page = generated.settings("raynas.config.run:Config")
    names = re.findall(r"^`([\w.]+)`\n: (.+)", page, re.MULTILINE)
    known = dict(names)
    assert {"train.lr", "search.filter.score", "train.shrink.every", "latency.place", "seed"} <= known.keys()
    assert len(known) == len(names) == sum(1 for _ in _leaves(Config()))
    bare = [name for name, text in names if re.fullmatch(r"\*.*\*( or null)?(, default `[^`]*`)?\.", text)]
    assert not bare, f"settings without a docstring: {', '.join(bare)}"


def _leaves(group: Any) -> Iterator[str]:
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value)
        else:
            yield field.name


@pytest.mark.slow
def test_the_documentation_builds_without_warnings(tmp_path: Path) -> None:
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package)
    line = ["-m", "sphinx", "-W", "--keep-going", "-q", "-d", tmp_path / "trees", ROOT / "docs", tmp_path / "html"]
    done = subprocess.run([sys.executable, *map(str, line)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "search.num_samples" in (tmp_path / "html/reference/configuration.html").read_text(encoding="utf-8")
    assert "ArchitectureSearcher" in (tmp_path / "html/reference/api.html").read_text(encoding="utf-8")
