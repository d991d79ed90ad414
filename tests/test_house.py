"""The rules of the house: which module may import which, how large a file may be, what must be described."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("raynas", "trainables", "spaces")


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def names(node: ast.AST, module: str) -> list[str]:
    """The dotted names that an import statement may mean: ``from a import b`` is ``a`` and ``a.b``."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        is_package = modules()[module].name == "__init__.py"
        package = module.split(".")[: None if is_package and node.level == 1 else -(node.level - is_package)]
        base = ".".join([*package, *([node.module] if node.module else [])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: not the bodies of functions, not ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from at_import(child)


def imports(module: str) -> set[str]:
    """What a module imports anywhere in its text."""
    return {name for node in ast.walk(tree(module)) for name in names(node, module)}


@cache
def loaded(module: str) -> frozenset[str]:
    """The modules of ours that are imported when this one is, itself not counted."""
    direct = {name for node in at_import(tree(module)) for name in names(node, module)} & set(modules())
    return frozenset(direct - {module})


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def public(module: str) -> bool:
    return not any(part.startswith("_") for part in module.split(".")) and bool(tree(module).body)


# The import direction

ALLOWED = {  # the longest name that fits says which modules of ours may be imported
    "raynas": ("raynas",),
    "raynas.architecture": (),
    "raynas.nn.choice": ("raynas.architecture",),
    "raynas.searchers": ("raynas.architecture", "raynas.storage.atomic", "raynas.searchers"),
    "spaces": ("raynas.nn.choice", "spaces"),
    "trainables": ("raynas", "trainables"),
}


@pytest.mark.parametrize("module", modules())
def test_imports_run_one_way(module: str) -> None:
    rule = max((name for name in ALLOWED if within(module, name)), key=len)
    ours = {name for name in imports(module) if within(name, *PACKAGES) and name not in PACKAGES}
    wrong = {name for name in ours if not within(name, *ALLOWED[rule])}
    assert not wrong, f"{module} may import of ours only {ALLOWED[rule]}"


def test_there_is_no_import_cycle() -> None:
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, "import cycle: " + " -> ".join([*above[above.index(module) :], module])
        if module not in done:
            for other in loaded(module):
                visit(other, (*above, module))
            done.add(module)

    for module in modules():
        visit(module, ())


@pytest.mark.parametrize("module", modules())
def test_our_own_modules_are_imported_at_the_top(module: str) -> None:
    functions = [n for n in ast.walk(tree(module)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inside = {name for function in functions for node in ast.walk(function) for name in names(node, module)}
    late = inside & set(modules())
    assert not late, f"{module} imports these inside functions"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("raynas.architecture", ["torch", "ray", "numpy"]),
        ("raynas.searchers", ["torch"]),
        ("raynas.results.log", ["torch", "ray"]),
        ("raynas.analysis.rank_correlation", ["torch", "ray"]),
        ("raynas.evaluation.rank_aggregation", ["torch", "ray", "scipy"]),
        ("trainables.shared_weights", ["torch"]),
        ("trainables.table", ["torch"]),
        ("trainables.angle", ["torch"]),
        ("raynas.supernet.actor", ["torch"]),
        ("raynas.supernet.worker", ["ray.tune", "ray.train", "pandas", "torchvision", "scipy"]),
    ],
)
def test_light_modules_stay_light(module: str, heavy: list[str]) -> None:
    code = f"import sys, {module}; print(*(name for name in {heavy} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


# The text


@pytest.mark.parametrize("module", modules())
def test_files_and_functions_have_a_size_to_read_at_once(module: str) -> None:
    lines = modules()[module].read_text(encoding="utf-8").count("\n")
    assert lines <= 500, f"{module} has {lines} lines"
    for node in ast.walk(tree(module)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            given = [name for name in given if name not in ("self", "cls")]
            assert len(given) <= 6, f"{module}.{node.name} has {len(given)} parameters: use a dataclass"
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{module}.{node.name} has {length} lines"


@pytest.mark.parametrize("module", [module for module in modules() if public(module)])
def test_public_modules_say_what_they_offer(module: str) -> None:
    assert ast.get_docstring(tree(module)), f"{module} has no docstring"
    if modules()[module].name == "__main__.py":
        return
    listed = [
        ast.literal_eval(node.value)
        for node in tree(module).body
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets)
    ]
    has_code = any(not isinstance(node, ast.Expr) for node in tree(module).body)
    assert listed or not has_code, f"{module} has no __all__"
    top = {
        getattr(node, "name", None) for node in tree(module).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    for name in listed[0] if listed else ():  # of a function with overloads, which have none, the last
        node = next((n for n in reversed(tree(module).body) if name in top and getattr(n, "name", "") == name), None)
        assert node is None or ast.get_docstring(node), f"{module}.{name} has no docstring"  # type: ignore[arg-type]


@pytest.mark.parametrize("module", modules())
def test_nothing_loads_code_from_data(module: str) -> None:
    assert not imports(module) & {"pickle", "cloudpickle", "dill", "marshal", "shelve"}, f"{module} unpickles"
    for node in ast.walk(tree(module)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in ("eval", "exec"), f"{module}:{node.lineno} calls {called}"
        if called == "torch.load":
            safe = [k for k in node.keywords if k.arg == "weights_only" and getattr(k.value, "value", None) is True]
            assert safe, f"{module}:{node.lineno} calls torch.load without weights_only=True"
        if called.startswith("yaml.") and "load" in called:
            assert "safe" in called.lower() or "Safe" in ast.unparse(node), f"{module}:{node.lineno} calls {called}"


WRITERS = {"raynas.storage.atomic", "raynas.storage.removal"}
"""The modules through which everything of ours is written, moved and removed."""
CHANGING = {
    *("os.open", "os.remove", "os.unlink", "os.rename", "os.renames", "os.replace", "os.rmdir", "os.removedirs"),
    *("os.truncate", "os.ftruncate", "os.link", "os.symlink", "os.fdopen", "np.save", "np.savez", "np.savetxt"),
    *("torch.save", "save_file", "torch.export.save", "torch.onnx.export"),
}
"""Functions that write, move or remove files by name."""
CHANGING_METHODS = {
    *("write_text", "write_bytes", "touch", "unlink", "rmdir", "rename", "symlink_to", "hardlink_to", "savefig"),
    *("to_csv", "to_parquet", "to_json", "to_pickle", "delete_file", "delete_dir", "delete_dir_contents"),
}
EXCEPTIONS = {
    ("raynas.export.formats", "save_file"): "drafts in a scratch folder, put in place by put_in_place",
    ("raynas.export.formats", "torch.export.save"): "as above",
    ("raynas.export.formats", "torch.onnx.export"): "as above",
    ("raynas._compat", "write_text"): "an empty snapshot in the scratch folder of Tune",
    ("raynas.training.checkpoint", "save_file"): "writes to the temporary name that replace_by_draft gives it",
    (
        "raynas.results.parquet",
        "delete_file",
    ): "parts of a log in any storage, after check_owned where that is a folder",
    ("raynas.storage.mirror", "delete_file"): "objects of the part that the mirror is of",
    ("raynas.storage.object_store", "delete_file"): "the object that tries out a store",
    ("raynas.storage.listing", "os.open"): "a folder, for reading",
    ("raynas.storage.locks", "os.ftruncate"): "the lock file, opened by open_lock",
}


def changing(call: ast.Call) -> str | None:
    """By which function a call writes, moves or removes files; None if by none."""
    called = ast.unparse(call.func)
    method = called.rpartition(".")[2]
    if called in CHANGING or method in CHANGING_METHODS:
        return called if called in CHANGING else method
    if called.split(".")[0] in ("shutil", "tempfile") and method != "which":
        return None if method in ("copyfileobj", "disk_usage", "gettempdir") else called
    if method == "replace" and len(call.args) == 1 and not call.keywords and called != "dataclasses.replace":
        return called  # Path.replace; that of a str takes two
    if called in ("open", "io.open") or (method == "open" and isinstance(call.func, ast.Attribute)):
        given = [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
        modes = [each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        return (
            called if any(re.fullmatch(r"[rwaxbt+]{1,3}", mode) and set(mode) & set("wax+") for mode in modes) else None
        )
    if method == "write_table":
        return None if ast.unparse(call.args[1]) == "sink" else called  # a buffer
    return None


@pytest.mark.parametrize("module", [module for module in modules() if not module.startswith("spaces")])
def test_files_are_written_and_removed_by_two_modules_alone(module: str) -> None:
    if module in WRITERS:
        return
    calls = [(node.lineno, changing(node)) for node in ast.walk(tree(module)) if isinstance(node, ast.Call)]
    found = {(line, how) for line, how in calls if how is not None and (module, how) not in EXCEPTIONS}
    assert not found, f"{module}: see raynas.storage.atomic and raynas.storage.removal"
    bare = {name for name in imports(module) if name.startswith(("os.", "shutil.")) and name not in ("os.path",)}
    assert bare <= {"shutil.copyfileobj"}, f"{module} imports functions that change files by their bare names"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("p.write_text('x')", True), ("open(p, 'w')", True), ("p.open(mode='ab')", True), ("open(p)", False),
        ("p.open('rb')", False), ("os.replace(a, b)", True), ("part.replace(path)", True),
        ("'a'.replace('b', 'c')", False),
        ("dataclasses.replace(c, x=1)", False), ("shutil.rmtree(p)", True), ("tempfile.mkdtemp()", True),
        ("pq.write_table(t, path)", True), ("pq.write_table(t, sink)", False), ("os.remove(p)", True),
        ("Image.open(file)", False), ("names.remove(x)", False), ("p.unlink()", True), ("open(p, 'r+b')", True),
    ],
)  # fmt: skip
def test_what_counts_as_a_change_of_files(text: str, found: bool) -> None:
    call = ast.parse(text).body[0]
    assert isinstance(call, ast.Expr) and isinstance(call.value, ast.Call)
    assert (changing(call.value) is not None) == found


@pytest.mark.parametrize("module", modules())
def test_there_is_no_global_state(module: str) -> None:
    assert not [node.lineno for node in ast.walk(tree(module)) if isinstance(node, ast.Global)]


# The papers around the code


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "cluster").rglob("*.md")]


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:|#", target):
            assert (document.parent / target.split("#")[0]).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("mark", ["main-line", "test-line"])
def test_the_readme_marks_its_two_lines(mark: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(rf"<!-- {mark} -->\s*```\w*\n([^\n]+)\n```", text)
    assert len(found) == 1, f"README.md must have one line of code after <!-- {mark} -->"
    assert ("raynas.launch" in found[0]) == (mark == "main-line")


def declared() -> dict[str, list[str]]:
    """The files that pyproject.toml names beside each dependency of its lists."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = re.findall(r'^    "([A-Za-z0-9_-]+)(?:\[[^\]]*\])?>=[^"]+",\s*# (.+)$', text, re.MULTILINE)
    return {name.lower(): files.split(", ") for name, files in lines}


IMPORT_NAME = {
    "mlflow-skinny": "mlflow",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "types-pyyaml": "yaml",
}


def test_dependencies_are_declared_with_the_file_that_needs_them() -> None:
    third_party = {name.split(".")[0] for module in modules() for name in imports(module)}
    third_party -= {*sys.stdlib_module_names, *PACKAGES, "__future__", ""}
    known = {IMPORT_NAME.get(name, name.replace("-", "_")) for name in declared()}
    assert third_party <= known, "imported, but not in pyproject.toml"


@pytest.mark.parametrize("name", declared())
def test_the_file_named_beside_a_dependency_needs_it(name: str) -> None:
    for file in declared()[name]:
        path = ROOT / file
        assert path.exists(), f"pyproject.toml names {file} beside {name}"
        if path.suffix == ".py":
            imported = IMPORT_NAME.get(name, name.replace("-", "_"))
            assert re.search(rf"\b{re.escape(imported)}\b", path.read_text(encoding="utf-8"), re.IGNORECASE), (
                f"pyproject.toml says that {file} needs {name}"
            )


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_imports_what_is_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                there = hasattr(module, alias.name) or f"{node.module}.{alias.name}" in modules()
                assert there, f"{node.module} has no {alias.name}"
