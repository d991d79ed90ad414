"""What is installed, and that it works: from a wheel beside a package of another's name, and from the source tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDERS = {"raynas.spaces": "spaces", "raynas.trainables": "trainables"}
SHIPPED = ("raynas", "spaces", "trainables", "pyproject.toml", "README.md", "LICENSE")


def run(*words: str | Path, folder: Path, **environment: str) -> str:
    """What a command prints; it must succeed. No working folder and no PYTHONPATH of the tests reach it."""
    settings = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    line = [str(word) for word in words]
    done = subprocess.run(line, cwd=folder, env=settings | environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_package_is_declared(repository: Path) -> None:
    text = (repository / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.findall(
        r'^    "(raynas[\w.]*)",$', text[text.index("[tool.setuptools]") : text.index("[tool.pytest")], re.M
    )
    there = {
        ".".join(path.parent.relative_to(repository).parts)
        for path in (repository / "raynas").rglob("__init__.py")
    } | {".".join((above, *path.parent.relative_to(repository / folder).parts))
         for above, folder in FOLDERS.items() for path in (repository / folder).rglob("__init__.py")}  # fmt: skip
    assert listed == sorted(there)
    for package, folder in FOLDERS.items():
        assert f'"{package}" = "{folder}"' in text
    files = {path for path in (repository / "raynas").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    data = {str(path.relative_to(repository / "raynas")) for path in files if path.suffix != ".py"}
    shipped = re.search(r"\[tool\.setuptools\.package-data\]\n(.+?)\n\n", text, re.DOTALL)
    assert shipped is not None
    unlisted = {
        name
        for name in data
        if f'"{Path(name).name}"' not in shipped[1] and f'"*{Path(name).suffix}"' not in shipped[1]
    }
    assert not unlisted, "name these in tool.setuptools.package-data"


ALONE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
"""pip takes what it finds on PYTHONPATH, the source tree of an editable installation among it, for installed."""


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree, built from a copy: the build leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SHIPPED:
        source = repository / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    build = [] if find_spec("setuptools") else ["isolated"]
    line = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(folder)]
    line += [] if build else ["--no-build-isolation"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=280)
    if build and done.returncode:
        pytest.skip(f"needs setuptools: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


def bare_environment(folder: Path) -> Path:
    """A virtual environment without raynas, and with the packages of the running one; returns its site-packages.

    A path in a ``.pth`` file is not searched for further ones: an editable installation of raynas stays behind.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(next(p for p in sys.path if p.endswith("site-packages")), encoding="utf-8")
    return packages


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, another's package ``spaces``, and whatever the running one has behind them."""
    folder = tmp_path_factory.mktemp("environment")
    packages = bare_environment(folder)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", wheel], check=True, timeout=280, env=ALONE)
    (packages / "spaces").mkdir()
    (packages / "spaces" / "__init__.py").write_text("GPU = 'another package'\n", encoding="utf-8")
    return folder


@pytest.mark.slow
def test_the_wheel_takes_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"raynas"}
    assert {"raynas/py.typed", "raynas/report/page.html", "raynas/spaces/darts.py", "raynas/trainables/table.py"} <= {
        *names
    }
    assert "Classifier: Typing :: Typed" in metadata
    assert wheel.stat().st_size < 2**20


@pytest.mark.slow
def test_an_installation_works_beside_another_package_called_spaces(environment: Path, tmp_path: Path) -> None:
    code = (
        "import raynas, spaces, importlib.util as u; from raynas.utils.imports import resolve; "
        "print(raynas.__version__, spaces.GPU, len(resolve('spaces.nasbench201:DECISIONS', 'space')), "
        "u.find_spec('raynas.spaces.darts').origin, u.find_spec('trainables'))"
    )
    said = run(environment / "bin" / "python", "-c", code, folder=tmp_path)
    version, *words, origin, gone = said.split()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version) and words == ["another", "package", "6"] and gone == "None"
    assert Path(origin).is_relative_to(environment)
    said = run(environment / "bin" / "raynas", "--help", folder=tmp_path)
    assert "--smoke-test" in said


MINE = """
import pyarrow as pa, pyarrow.parquet as pq
DECISIONS = {"a": ("x", "y", "z"), "b": ("x", "y", "z")}
if __name__ == "__main__":
    pairs = [(a, b) for a in "xyz" for b in "xyz"]
    scores = [float(n) for n in range(9)]
    table = {"a": [a for a, _ in pairs], "b": [b for _, b in pairs], "accuracy": scores}
    pq.write_table(pa.table(table), "scores.parquet")
"""


@pytest.mark.slow
@pytest.mark.ray
def test_an_installation_searches_a_table(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    python = environment / "bin" / "python"
    run(python, "mine.py", folder=tmp_path)
    words = ["--space", "mine:DECISIONS", "search.trainable=trainables.table:Table", "search.method=random"]
    words += ["search.trainable_args.file=scores.parquet", "search.trainable_args.metric=accuracy"]
    said = run(
        python,
        "-m",
        "raynas.launch",
        *words,
        "--smoke-test",
        "--storage-path",
        "runs",
        "--name",
        "run",
        folder=tmp_path,
    )
    assert "report: " in said
    assert (tmp_path / "runs" / "run" / "report.html").is_file()


@pytest.mark.slow
def test_the_source_tree_works_without_installation(repository: Path, tmp_path: Path) -> None:
    code = "import raynas.spaces.darts as a, raynas.trainables.table as b; print(a.__file__, b.__file__)"
    said = run(sys.executable, "-c", code, folder=tmp_path, PYTHONPATH=str(repository)).split()
    assert said == [str(repository / "spaces" / "darts.py"), str(repository / "trainables" / "table.py")]


@pytest.mark.slow
def test_an_editable_installation_maps_the_folders(wheel: Path, tmp_path: Path) -> None:
    """Its packages are those of the tree, and no top-level name but raynas is taken."""
    source, target = wheel.parent, tmp_path / "packages"
    line = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), "-e", str(source)]
    line += ["--no-build-isolation"] if find_spec("setuptools") else []
    subprocess.run(line, check=True, capture_output=True, timeout=280, env=ALONE)
    bare_environment(tmp_path / "environment")
    code = (
        f"import site, sys; sys.path.insert(0, {str(target)!r}); site.addsitedir(sys.path[0]); "
        "import raynas.spaces.nao_genotype as a, importlib.util as u; "
        "print(a.__file__, u.find_spec('spaces'), u.find_spec('trainables'))"
    )
    said = run(tmp_path / "environment" / "bin" / "python", "-c", code, folder=tmp_path).split()
    assert said[0] == str(source / "spaces" / "nao_genotype.py") and said[1:] == ["None", "None"]
