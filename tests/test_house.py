"""The rules of the code base: how large a file may be, what must be described, what may keep state or write files."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.source import FUNCTIONS, MAPPED, ROOT, imports, modules, nodes, public, tree

# The text


def test_files_and_functions_have_a_size_to_read_at_once() -> None:
    lines = {module: path.read_text(encoding="utf-8").count("\n") for module, path in modules().items()}
    large = [f"{module} has {count} lines" for module, count in lines.items() if count > 400]
    for module, node in nodes(*FUNCTIONS):
        assert isinstance(node, FUNCTIONS)
        given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        given = [name for name in given if name not in ("self", "cls")]
        if len(given) > 6:
            large.append(f"{module}.{node.name} has {len(given)} parameters: use a dataclass")
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > 60:
            large.append(f"{module}.{node.name} has {length} lines")
    assert not large


def undescribed(module: str) -> Iterator[str]:
    """What a public module does not say about itself."""
    if not ast.get_docstring(tree(module)):
        yield f"{module} has no docstring"
    if modules()[module].name == "__main__.py":
        return
    listed = [
        ast.literal_eval(node.value)
        for node in tree(module).body
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets)
    ]
    if not listed and any(not isinstance(node, ast.Expr) for node in tree(module).body):
        yield f"{module} has no __all__"
    top = {n.name: n for n in tree(module).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    for name in listed[0] if listed else ():
        if name in top and not ast.get_docstring(top[name]):
            yield f"{module}.{name} has no docstring"


def test_public_modules_say_what_they_offer() -> None:
    assert not [fault for module in modules() if public(module) for fault in undescribed(module)]


def unsafe(call: ast.Call) -> str | None:
    """How a call runs code from data; None where it does not."""
    called = ast.unparse(call.func)
    if called in ("eval", "exec"):
        return f"calls {called}"
    if called == "torch.load":
        safe = [k for k in call.keywords if k.arg == "weights_only" and getattr(k.value, "value", None) is True]
        return None if safe else "calls torch.load without weights_only=True"
    if called.startswith("yaml.") and "load" in called:
        return None if "safe" in called.lower() or "Safe" in ast.unparse(call) else f"calls {called}"
    return None


def test_nothing_loads_code_from_data() -> None:
    forbidden = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
    wrong = [f"{module} imports {name}" for module in modules() for name in imports(module) & forbidden]
    for module, node in nodes(ast.Call):
        assert isinstance(node, ast.Call)
        if how := unsafe(node):
            wrong.append(f"{module}:{node.lineno} {how}")
    assert not wrong


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
    ("raynas.cli.native_stderr", "os.fdopen"): "the program's own stderr",
    ("raynas.export.checks", "save_file"): "inputs in a scratch folder, for a process of its own",
    ("raynas.export.formats", "save_file"): "drafts in a scratch folder, put in place by put_in_place",
    ("raynas.export.formats", "torch.export.save"): "as above",
    ("raynas.export.formats", "torch.onnx.export"): "as above",
    ("raynas._compat", "write_text"): "an empty snapshot in the scratch folder of Tune",
    ("raynas.training.checkpoint", "save_file"): "writes to the temporary name that replace_by_draft gives it",
    (
        "raynas.results.parquet",
        "delete_file",
    ): "parts of a log in any storage, after check_owned where that is a folder",
    ("raynas.storage.sync", "delete_file"): "objects of the part of the store that is copied",
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
        return None if method in ("copyfileobj", "disk_usage", "get_terminal_size", "gettempdir") else called
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


def test_files_are_written_and_removed_by_two_modules_alone() -> None:
    wrong, used = [], set()
    for module in modules():
        if module in WRITERS or module.startswith("raynas.spaces"):
            continue
        for node in ast.walk(tree(module)):
            how = changing(node) if isinstance(node, ast.Call) else None
            if (module, how) in EXCEPTIONS:
                used.add((module, how))
            elif how is not None:
                wrong.append(f"{module}: {how}")
        bare = {name for name in imports(module) if name.startswith(("os.", "shutil.")) and name not in ("os.path",)}
        wrong += [f"{module} imports {name} by its bare name" for name in bare - {"shutil.copyfileobj"}]
    assert not wrong, "see raynas.storage.atomic and raynas.storage.removal"
    assert used == set(EXCEPTIONS), "take these from EXCEPTIONS"


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


MUTATING = {
    *("append", "extend", "insert", "appendleft", "add", "update", "setdefault", "pop", "popitem", "popleft"),
    *("remove", "discard", "clear", "sort", "reverse"),
}
STATE = {
    "raynas._compat._warn": "each warning is given once",
    "raynas.cli.main.sys": "the path of a program of its own: a user's packages lie in the working folder",
    "raynas.cli.native_stderr.sys": "sys.stderr of a program of its own gets another file descriptor",
    "raynas.config.trust._TRUSTED": "a ContextVar: what a caller has allowed for the call that it makes",
    "raynas.distributed.connection.os": "Ray reads its settings from the environment",
    "raynas.distributed.health._WATCH": "a process has one connection to Ray, and one watch over it",
    "raynas.distributed.local_ray._MADE": "the scratch folders of this process, removed at its end",
    "raynas.distributed.local_ray._private_folder": "one folder for each process, also after a fork",
    "raynas.distributed.local_ray.os": "Ray reads its settings from the environment; set back after its start",
    "raynas.distributed.rendezvous.os": "gloo reads its network interface from the environment",
    "raynas.nn.references._FOUND": "found once for each space, and forgotten with it",
    "raynas.results.files._adapter": "pydantic's validators, built once for each class",
    "raynas.storage.locks._LOCKS": "the operating system counts the locks of a process, not of its objects",
    "raynas.storage.locks._make_process_folder": "one folder for each process, also after a fork",
    "raynas.storage.removal._OWNED": "what this process has marked is marked again where somebody has deleted it",
    "raynas.testing.other_process._process": "one process for all contracts of a test run",
    "raynas.tune.experiment.os": "Tune reads its settings from the environment",
}
"""What functions change and outlives them, with the reason."""


def outside(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module that no function holds."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (*FUNCTIONS, ast.Lambda)):
            yield from outside(child)


def bound(function: ast.AST) -> set[str]:
    """The names that are local to a function."""
    found = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    return found | {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def root(node: ast.AST) -> str:
    """The name that ``name.a[0].b`` begins with."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


SYNCHRONISING = {"Lock", "RLock", "Event", "Condition", "Semaphore", "local", "Queue", "ContextVar", "Thread"}
"""Classes of the standard library whose instances change."""


def changes_itself(kind: ast.ClassDef) -> bool:
    """Whether a method of a class, other than its constructor, changes attributes of ``self``."""
    methods = [n for n in kind.body if isinstance(n, FUNCTIONS) and n.name not in ("__init__", "__post_init__")]
    changed = []
    for node in (node for method in methods for node in ast.walk(method)):
        if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
            changed.append(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATING:
            changed += (
                [] if isinstance(node.func.value, ast.Name) else [node.func]
            )  # self.x.append(), not self.append()
    return any(root(node) == "self" for node in changed)


def state(module: ast.Module) -> Iterator[tuple[str, int]]:
    """The names of a module that its functions change, each with a line: containers, attributes, caches, globals."""
    packages = {a.asname or a.name.split(".")[0] for n in outside(module) if isinstance(n, ast.Import) for a in n.names}
    top = packages | {"cls"}
    for node in outside(module):
        if isinstance(node, ast.ImportFrom):
            top |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            top.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            top.add(node.id)

    def within(function: ast.AST, local: set[str]) -> Iterator[tuple[str, int]]:
        for node in ast.iter_child_nodes(function):
            changed = []
            if isinstance(node, ast.Global):
                changed = node.names
            elif isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
                changed = [root(node)]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATING:
                called = root(node.func)  # np.sort is a function of numpy, os.environ.pop changes os
                changed = [called] if called not in packages or isinstance(node.func.value, ast.Attribute) else []
            yield from ((name, node.lineno) for name in changed if name in top - local)
            yield from within(node, local | bound(node) - {"cls"} if isinstance(node, FUNCTIONS) else local)

    changing_classes = {n.name for n in outside(module) if isinstance(n, ast.ClassDef) and changes_itself(n)}
    for node in outside(module):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Call):
            called = ast.unparse(node.value.func)
            if called in changing_classes or called.rpartition(".")[2] in SYNCHRONISING:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from ((target.id, node.lineno) for target in targets if isinstance(target, ast.Name))
    for function in (node for node in outside(module) if isinstance(node, (*FUNCTIONS, ast.Lambda))):
        if any(re.search(r"\b(lru_)?cache\b", ast.unparse(each)) for each in getattr(function, "decorator_list", ())):
            yield getattr(function, "name", ""), function.lineno
        yield from within(function, bound(function) - {"cls"})


def test_there_is_no_global_state() -> None:
    found = {f"{module}.{name}": line for module in modules() for name, line in state(tree(module))}
    assert not {name: line for name, line in found.items() if name not in STATE}
    assert set(STATE) == set(found), "take these from STATE"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A = {}\ndef f(): A['x'] = 1", True), ("A = []\ndef f(): A.append(1)", True),
        ("A = 0\ndef f():\n  global A", True), ("A = {}\ndef f(): del A['x']", True),
        ("A = C()\ndef f(): A.x = 1", True), ("A = C()\ndef f(): A.x.y[0] += 1", True),
        ("A = C()\ndef f(): A.names.add(1)", True), ("import m\ndef f(): m.x = 1", True),
        ("class C:\n  @classmethod\n  def f(cls): cls.x = 1", True), ("@functools.cache\ndef f(): return 1", True),
        ("def f(A): A['x'] = 1", False), ("A = {}\ndef f():\n  A = {}\n  A['x'] = 1", False),
        ("A = {}\nA['x'] = 1", False), ("import numpy as np\ndef f(x): return np.sort(x)", False),
        ("A = {}\ndef f(): return A['x']", False), ("class C:\n  def f(self): self.x = 1", False),
        ("A = threading.Lock()", True), ("A: Event = Event()", True),
        ("class C:\n  def f(self): self.x = 1\nA = C()", True),
        ("class C:\n  def f(self): self.x.append(1)\nA = C()", True),
        ("class C:\n  def f(self): del self.x[0]\nA: C = C()", True),
        ("class C:\n  def __init__(self): self.x = 1\nA = C()", False),
        ("class C:\n  def f(self): return self.x.copy()\nA = C()", False),
    ],
)  # fmt: skip
def test_what_counts_as_global_state(text: str, found: bool) -> None:
    assert bool([*state(ast.parse(text))]) == found


# The papers around the code


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "cluster").rglob("*.md")]


def test_links_lead_somewhere() -> None:
    dead = [
        f"{document.relative_to(ROOT)} links to {target}"
        for document in documents()
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:|#", target) and not (document.parent / target.split("#")[0]).exists()
    ]
    assert not dead


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
    third_party -= {*sys.stdlib_module_names, "raynas", "__future__", ""}
    known = {IMPORT_NAME.get(name, name.replace("-", "_")) for name in declared()}
    assert third_party <= known, "imported, but not in pyproject.toml"


def test_the_file_named_beside_a_dependency_needs_it() -> None:
    wrong = []
    for name, files in declared().items():
        imported = IMPORT_NAME.get(name, name.replace("-", "_"))
        for path in (ROOT / file for file in files):
            if not path.exists() or (
                path.suffix == ".py"
                and not re.search(rf"\b{re.escape(imported)}\b", path.read_text(encoding="utf-8"), re.IGNORECASE)
            ):
                wrong.append(f"{path.relative_to(ROOT)} does not need {name}")
    assert not wrong


@pytest.mark.slow
def test_a_benchmark_imports_what_is_there() -> None:
    gone = []
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("raynas", *MAPPED):
                module = importlib.import_module(node.module or "")
                gone += [
                    f"{path.name}: {node.module}.{alias.name}"
                    for alias in node.names
                    if not hasattr(module, alias.name) and f"{node.module}.{alias.name}" not in modules()
                ]
    assert not gone
