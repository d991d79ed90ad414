"""What may import what: import-linter's contracts in pyproject.toml, and what they cannot say."""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.source import FUNCTIONS, MAPPED, ROOT, modules, names, nodes, tree


def installed(folder: Path) -> None:
    """Copy the tree as an installation has it, with the imports by ``import_module("raynas...")`` written out."""
    for module, path in modules().items():
        copy = folder / Path(*module.split("."), *(["__init__"] if path.name == "__init__.py" else []))
        copy.parent.mkdir(parents=True, exist_ok=True)
        calls = [n for n in ast.walk(tree(module)) if isinstance(n, ast.Call) and n.args]
        called = [n.args[0] for n in calls if ast.unparse(n.func).endswith("import_module")]
        hidden = [f"import {n.value}" for n in called if isinstance(n, ast.Constant) and n.value in modules()]
        copy.with_suffix(".py").write_text("\n".join([path.read_text(encoding="utf-8"), *hidden, ""]), encoding="utf-8")
    shutil.copy(ROOT / "pyproject.toml", folder)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on a copy of the tree, in a process that has not imported ours."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    line = [sys.executable, "-c", code]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": "."})


def test_imports_keep_the_contracts_of_pyproject(tmp_path: Path) -> None:
    installed(tmp_path)
    done = lint(tmp_path)
    assert done.returncode == 0, done.stdout[done.stdout.find("Broken contracts") :] + done.stderr


def test_the_contracts_find_what_breaks_them(tmp_path: Path) -> None:
    installed(tmp_path)
    wrong = {
        "costs/ridge.py": ("if TYPE_CHECKING:\n    import raynas.runs.budget", "raynas.costs is not allowed to import"),
        "nn/choice.py": ("from raynas.spaces import darts", "raynas.nn is not allowed to import raynas.spaces"),
        "data/text.py": ("from raynas.distributed import nodes", "raynas.data is not allowed to import raynas.dist"),
        "utils/seeds.py": ("def late():\n    from raynas import Run", "raynas.utils is not allowed to import"),
        "results/queries.py": ("import raynas.results.log", "No cycles are allowed in raynas.results."),
        "spaces/darts.py": ("import raynas.search_space.space", "raynas.spaces is not allowed to import"),
        "searchers/random.py": ("import raynas.config.run", "raynas.searchers is not allowed to import raynas.config"),
    }
    for module, (line, _) in wrong.items():
        with (tmp_path / "raynas" / module).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    assert "import raynas.supernet.worker" in (tmp_path / "raynas/supernet/actor.py").read_text(encoding="utf-8")
    said = " ".join(lint(tmp_path).stdout.split())
    assert not [broken for _, broken in wrong.values() if broken not in said], said


def test_a_module_imports_neither_its_own_packages_nor_a_folder_by_its_name_at_the_top() -> None:
    wrong = []
    for module in modules():
        above = {module.rpartition(".")[0], "raynas"} - {module}
        wrong += [
            f"{module}: {name}"
            for node in ast.walk(tree(module))
            for name in [n for n in names(node, module)[:1] if not isinstance(node, ast.Import) or n != "raynas"]
            if (name in above and any(f"{name}.{a.name}" not in modules() for a in getattr(node, "names", ())))
            or name.split(".")[0] in MAPPED
        ]
    assert not wrong, "import from the module that defines it; raynas.spaces and raynas.trainables by their full names"


def test_our_own_modules_are_imported_at_the_top() -> None:
    late = [
        f"{module}.{function.name}: {name}"
        for module, function in nodes(*FUNCTIONS)
        for node in ast.walk(function)
        for name in names(node, module)
        if name in modules()
    ]
    assert not late, "these are imported inside functions"


def test_lazy_packages_show_the_type_checker_what_they_import() -> None:
    """``_HOMES`` says where each name of a package lies; the block under TYPE_CHECKING must say the same."""
    lazy = {
        module: ast.literal_eval(node.value)
        for module, node in nodes(ast.Assign)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES"
    }
    assert {"raynas", "raynas.searchers", "raynas.results"} <= set(lazy)
    for module, homes in lazy.items():
        (block,) = (n for n in tree(module).body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
        shown = {
            alias.asname or alias.name: f"{node.module}:{alias.name}" if alias.asname else node.module
            for node in block.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert homes == shown, module
        package = importlib.import_module(module)
        assert sorted(package.__all__) == dir(package), module
        assert set(package.__all__) - {"__version__"} == set(homes), module


NAO = {f"raynas.searchers.nao.{name}" for name in ("searcher", "latent_space", "network")}
LIGHT = {
    ("torch", "ray", "numpy", "pandas", "yaml"): ["raynas", "raynas.architecture", "raynas.exceptions"],
    ("torch", "ray", "scipy"): ["raynas.evaluation.rank_aggregation"],
    ("torch", "ray"): [
        *(name for name in modules() if name.startswith("raynas.results")),
        "raynas.analysis.rank_correlation",
    ],
    ("torch",): [
        *(name for name in modules() if name.startswith("raynas.searchers") and name not in NAO),
        *("raynas.trainables.shared_weights", "raynas.trainables.table", "raynas.trainables.angle"),
        "raynas.supernet.actor",
    ],
    ("ray.tune", "ray.train", "pandas", "torchvision", "scipy"): ["raynas.supernet.worker"],
}
"""What modules do not import, and these modules: a process of a cluster pays for each in seconds and memory."""


@pytest.mark.slow
@pytest.mark.parametrize("heavy", LIGHT, ids=", ".join)
def test_light_modules_stay_light(heavy: tuple[str, ...]) -> None:
    code = f"import sys, {', '.join(LIGHT[heavy])}; print(*(name for name in {heavy} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
