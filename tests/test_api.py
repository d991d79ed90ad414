"""The names of the package itself: typed, described, and loaded when they are used."""

from __future__ import annotations

import importlib.metadata
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import raynas
from raynas import exceptions, launch

HEAVY = ("torch", "ray", "pandas", "numpy", "pydantic", "yaml")


def test_dir_lists_the_public_names() -> None:
    assert dir(raynas) == sorted(raynas.__all__)
    assert {"Choice", "SearchSpace", "prepare", "load_config", "Run", "Task", "ConfigError", "__version__"} <= {
        *dir(raynas)
    }
    assert len(raynas.__all__) <= 30


def test_every_name_is_there_and_says_what_it_is() -> None:
    for name in set(raynas.__all__) - {"__version__", "Architecture"}:  # an alias of dict has no text of its own
        assert (getattr(raynas, name).__doc__ or "").strip(), name
    assert raynas.Architecture == dict[str, str]
    said = pydoc.plain(pydoc.render_doc("raynas.prepare"))
    assert "raynas.prepare" in said and "Returns:" in said
    assert "Choice" in pydoc.plain(pydoc.render_doc("raynas"))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'raynas' has no attribute 'Choise'"):
        _ = raynas.Choise


def test_settings_are_loaded_by_the_public_name() -> None:
    assert raynas.load_config(overrides=["train.epochs=3"]).train.epochs == 3
    with pytest.raises(raynas.RayNASError, match=r"unknown setting 'train\.epoch'"):
        raynas.load_config(overrides=["train.epoch=3"])


def test_every_error_has_the_common_base_and_that_of_python() -> None:
    for name in set(exceptions.__all__) - {"RayNASError"}:
        error = getattr(exceptions, name)
        assert issubclass(error, raynas.RayNASError), name
        assert issubclass(error, (ValueError, RuntimeError, OSError)), name
        assert str(error("what is wrong")) == "what is wrong"


def test_the_version_is_that_of_the_source_tree_or_else_of_the_installation(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = re.search(r'^version = "(.+)"$', (repository / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert said is not None and raynas.__version__ == said[1]
    monkeypatch.setattr(raynas, "__file__", str(tmp_path / "raynas" / "__init__.py"))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"installed {name}")
    assert raynas.__version__ == "installed raynas"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "7"\n', encoding="utf-8")
    assert raynas.__version__ == "installed raynas"


def test_the_citation_names_the_version(repository: Path) -> None:
    assert f"\nversion: {raynas.__version__}\n" in (repository / "CITATION.cff").read_text(encoding="utf-8")


def test_the_program_watches_ray_and_ends_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Ray dies, its library would wait forever: only a program of its own may be ended then."""
    guarded: list[bool] = []
    monkeypatch.setattr(launch.health, "guard", lambda: guarded.append(True))
    monkeypatch.setattr(launch, "main", lambda: 3)
    with pytest.raises(SystemExit) as ended:
        launch.run()
    assert ended.value.code == 3 and guarded == [True]


def test_import_loads_nothing_heavy(repository: Path) -> None:
    line = [sys.executable, "-X", "importtime", "-c", "import raynas; dir(raynas); raynas.__version__"]
    said = subprocess.run(line, cwd=repository, capture_output=True, text=True, check=True).stderr
    imported = {row.rpartition("|")[2].strip() for row in said.splitlines()}
    assert "raynas" in imported
    assert not imported & {*HEAVY}


USER = """
import raynas
reveal_type(raynas.load_config("run.yaml").train.epochs)
raynas.Choice(3)
raynas.Choise
"""
SKIPPED = ("PIL", "moocore", "numpy", "optuna", "pandas", "pyarrow", "pydantic", "ray", "rich", "safetensors", "scipy",
           "sklearn", "torch", "torchvision")  # fmt: skip


@pytest.mark.slow
def test_a_type_checker_sees_the_types(repository: Path, tmp_path: Path) -> None:
    """With what others ship left out: their own types are not the question, and take a minute."""
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    skipped = ",".join(f"mypy-{package}.*" for package in SKIPPED)
    settings = f"[mypy]\n[{skipped}]\nfollow_imports = skip\nignore_missing_imports = true\n"
    (tmp_path / "mypy.ini").write_text(settings, encoding="utf-8")
    line = [sys.executable, "-m", "mypy", "--follow-imports=silent", "user.py"]
    environment = {"MYPYPATH": str(repository), "PATH": ""}
    said = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280).stdout
    assert 'user.py:3: note: Revealed type is "float | None"' in said, said
    assert "user.py:4: error: Argument" in said
    assert 'user.py:5: error: Module has no attribute "Choise"' in said
