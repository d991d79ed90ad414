"""A found network as files that need no RayNAS: plain PyTorch code with weights, ``torch.export``, ONNX.

Every file is loaded back and compared with the network before it is put in place; what does not agree is not written.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from raynas.exceptions import CodegenError, ExportError
from raynas.export.source import source_of
from raynas.storage.atomic import put_in_place, replace_text
from raynas.storage.removal import MARKER, own, scratch

__all__ = ["FORMATS", "ExportReport", "ExportedFile", "export"]

FORMATS = ("safetensors", "torch_export", "onnx")

Inputs = tuple[Tensor, ...]
Trials = list[Inputs]
Run = Callable[[Trials], list[list[Tensor]]]

_BATCHES = (1, 3)
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class ExportedFile:
    """One format, written and checked.

    Args:
        format: One of :data:`FORMATS`.
        path: Of the file to load; for safetensors ``model.py``, with ``model.safetensors`` beside it.
        difference: Largest absolute difference between its outputs and the network's.
        scale: Largest absolute value among the network's outputs, to judge the difference by.
        bytes: Size of all files of the format.
    """

    format: str
    path: Path
    difference: float
    scale: float
    bytes: int


@dataclass(frozen=True)
class ExportReport:
    """What was written; printed, it is a table."""

    files: tuple[ExportedFile, ...]

    def __str__(self) -> str:
        return "\n".join(
            f"{file.format:<13}{file.path}  {file.bytes / 1e6:.2f} MB, "
            f"outputs up to {file.scale:.3g} differ by at most {file.difference:.1e}"
            for file in self.files
        )


def export(
    subnet: nn.Module,
    example_inputs: tuple[Tensor, ...],
    folder: str | Path,
    formats: Sequence[str] = ("safetensors", "torch_export"),
    tolerance: float = 1e-4,
) -> ExportReport:
    """Write a network in formats that need no RayNAS, and check each file against the network.

    - ``safetensors``: ``model.py``, readable code on torch and safetensors alone with a function ``load()``, and its
      weights ``model.safetensors``. Checked in a process of its own that can import neither RayNAS nor the packages
      in which the network's modules are defined.
    - ``torch_export``: ``model.pt2`` for ``torch.export.load``.
    - ``onnx``: ``model.onnx``, checked in onnxruntime. Needs the extra ``raynas[onnx]``.

    All work for any number of images at once.

    Args:
        subnet: What ``derive`` returned, or any module; it is copied, and the copy put into eval mode on the CPU.
        example_inputs: What its ``forward`` is called with; the first dimension of each is the batch.
        folder: Where the files go; made if it does not exist.
        formats: Which of :data:`FORMATS`.
        tolerance: Largest allowed difference on random inputs, as a share of the largest value in the same output.

    Raises:
        ExportError: Unknown format, missing package, a network that a format cannot express, or a file whose results
            differ. Files of formats that were finished before stay.
    """
    _check_request(formats, example_inputs)
    network = copy.deepcopy(subnet).cpu().eval()
    given = tuple(tensor.detach().cpu() for tensor in example_inputs)
    trials = [_random_like(given, batch) for batch in _BATCHES]
    _leave_out_idle(network, trials[0])
    expected = [_outputs(network, inputs) for inputs in trials]
    scale = max(
        (float(_numbers(out).abs().max()) for outputs in expected for out in outputs if out.numel()), default=0.0
    )
    if not math.isfinite(scale):
        raise ExportError("the network gives NaN or infinity on random inputs: there is nothing to compare with")
    folder = Path(folder)
    own(folder)
    files = []
    for name in formats:
        # A draft beside the target, so that a file that failed its check never stands under its final name.
        with scratch(".draft-", folder) as draft:
            main, run = _WRITERS[name](copy.deepcopy(network), trials[-1], draft)
            with _explained(name, network):
                found = run(trials)
            pairs = zip(expected, found, strict=True)
            difference = max(_difference(name, ours, theirs, tolerance) for ours, theirs in pairs)
            written = sorted(file for file in draft.iterdir() if file.name != MARKER)
            size = sum(file.stat().st_size for file in written)
            for file in written:
                put_in_place(file, folder / file.name)
        files.append(ExportedFile(name, folder / main, difference, scale, size))
    return ExportReport(tuple(files))


def _check_request(formats: Sequence[str], example_inputs: Inputs) -> None:
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ExportError(f"unknown format {unknown[0] if unknown else None!r}; legal ones: {', '.join(FORMATS)}")
    if not example_inputs or any(tensor.ndim == 0 or not tensor.numel() for tensor in example_inputs):
        raise ExportError("example_inputs must be tensors with a batch as their first dimension, and not empty")
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if "onnx" in formats and missing:
        raise ExportError(f"onnx needs {' and '.join(missing)}: pip install 'raynas[onnx]'")


def _random_like(example: Inputs, batch: int) -> Inputs:
    """Inputs of another batch size: normal numbers, or where the type has none, values of the example at random."""
    generator = torch.Generator().manual_seed(batch)

    def draw(tensor: Tensor) -> Tensor:
        shape = (batch, *tensor.shape[1:])
        if tensor.is_floating_point():
            return torch.randn(shape, generator=generator).to(tensor.dtype)
        return tensor.flatten()[torch.randint(tensor.numel(), shape, generator=generator)]

    return tuple(map(draw, example))


def _outputs(network: Callable[..., Any], inputs: Inputs) -> list[Tensor]:
    """The tensors that a network returns, in the order in which they stand in its tuples, lists and dicts."""
    with torch.no_grad():
        found = pytree.tree_leaves(network(*(tensor.clone() for tensor in inputs)))
    return [value for value in found if isinstance(value, Tensor)]


def _leave_out_idle(network: nn.Module, inputs: Inputs) -> None:
    """Take out the parts of a network that only training uses, such as auxiliary classifiers."""
    called: set[nn.Module] = set()
    handles = [m.register_forward_pre_hook(lambda module, args: called.add(module)) for m in network.modules()]
    _outputs(network, inputs)
    for handle in handles:
        handle.remove()
    for name, child in list(network.named_children()):
        if called.isdisjoint(child.modules()):
            network._modules[name] = None
            try:
                _outputs(network, inputs)
            except Exception:  # whatever a forward raises that reads the weights of a module without calling it
                network._modules[name] = child


def _numbers(tensor: Tensor) -> Tensor:
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).double()


def _difference(name: str, expected: list[Tensor], found: list[Tensor], tolerance: float) -> float:
    shapes = [[tuple(out.shape) for out in outputs] for outputs in (expected, found)]
    if shapes[0] != shapes[1]:
        raise ExportError(f"{name} gives outputs of the shapes {shapes[1]}, the network {shapes[0]}")
    worst = 0.0
    for ours, theirs in zip(expected, found, strict=True):
        if not ours.numel():
            continue
        difference = float((_numbers(ours) - _numbers(theirs)).abs().max())
        allowed = tolerance * float(_numbers(ours).abs().max())
        if not difference <= allowed:  # also for NaN
            raise ExportError(f"{name} differs from the network by {difference:.3g}, more than {allowed:.3g}")
        worst = max(worst, difference)
    return worst


def _write_safetensors(network: nn.Module, inputs: Inputs, folder: Path) -> tuple[str, Run]:
    # Asked for before the tracing, which may add attributes.
    packages = {type(module).__module__.split(".")[0] for module in network.modules()}
    hidden = sorted({"raynas", "spaces", "trainables", *packages} - {"torch", "builtins", "__main__"})
    try:
        text, state = source_of(network, len(inputs))
    except CodegenError as error:
        raise ExportError(_failure("safetensors", network, error)) from error
    replace_text(folder / "model.py", text, timeout=0)
    save_file(state, folder / "model.safetensors")
    return "model.py", lambda trials: _run_alone(folder, trials, hidden)


_RUNNER = """
import importlib.util, pathlib, sys
folder, exchange, *hidden = sys.argv[1:]
sys.modules.update(dict.fromkeys(hidden))  # None: importing them fails
sys.dont_write_bytecode = True
import torch
from safetensors.torch import load_file, save_file
from torch.utils import _pytree as pytree
spec = importlib.util.spec_from_file_location("model", folder + "/model.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
network = module.load()
for trial in sorted(pathlib.Path(exchange).glob("*.safetensors")):
    inputs = load_file(trial)
    with torch.no_grad():
        found = pytree.tree_leaves(network(*(inputs[str(i)] for i in range(len(inputs)))))
    tensors = [value.clone().contiguous() for value in found if isinstance(value, torch.Tensor)]
    save_file({str(i): value for i, value in enumerate(tensors)}, trial)
"""


def _run_alone(folder: Path, trials: Trials, hidden: Sequence[str]) -> list[list[Tensor]]:
    """Run ``model.py`` in a fresh Python that cannot import the ``hidden`` packages."""
    with scratch() as exchange:
        files = [exchange / f"{index}.safetensors" for index in range(len(trials))]
        for inputs, file in zip(trials, files, strict=True):
            save_file({str(i): value.contiguous() for i, value in enumerate(inputs)}, file)
        # -I: neither the current folder nor PYTHONPATH nor the user's own packages.
        command = [sys.executable, "-I", "-c", _RUNNER, str(folder), str(exchange), *hidden]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ExportError(f"model.py does not run by itself: {last}")
        outputs = [load_file(file) for file in files]
    return [[found[str(i)] for i in range(len(found))] for found in outputs]


def _write_torch_export(network: nn.Module, inputs: Inputs, folder: Path) -> tuple[str, Run]:
    path = folder / "model.pt2"
    with _explained("torch_export", network):
        torch.export.save(torch.export.export(network, inputs, dynamic_shapes=_any_batch(inputs)), path)
        loaded = torch.export.load(path).module()
    return path.name, lambda trials: [_outputs(loaded, inputs) for inputs in trials]


def _write_onnx(network: nn.Module, inputs: Inputs, folder: Path) -> tuple[str, Run]:
    import onnxruntime

    path = folder / "model.onnx"
    # A single file where the format's limit of 2 GB allows it.
    large = sum(value.nbytes for value in network.state_dict().values()) > 1.8e9
    with _explained("onnx", network):
        torch.onnx.export(
            network,
            inputs,
            path,
            dynamo=True,
            dynamic_shapes=_any_batch(inputs),
            external_data=large,
            verbose=False,
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(inputs: Inputs) -> list[Tensor]:
        fed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return [torch.from_numpy(value) for value in session.run(None, fed)]

    return path.name, lambda trials: [run(inputs) for inputs in trials]


def _any_batch(inputs: Inputs) -> tuple[dict[int, Any], ...]:
    """That the first dimension of every input is one and the same number, whatever it is."""
    batch = torch.export.Dim("batch")
    return tuple({0: batch} for _ in inputs)


@contextlib.contextmanager
def _explained(name: str, network: nn.Module) -> Iterator[None]:
    """Turn whatever an exporter raises into one line that says which format failed and why."""
    try:
        yield
    except ExportError:
        raise
    except Exception as error:  # the exporters document no common class
        raise ExportError(_failure(name, network, error)) from error


def _failure(name: str, network: nn.Module, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    others = " and ".join(other for other in FORMATS if other != name)
    return f"{name} cannot express {type(network).__name__}: {reason}; {others} may still work"


_WRITERS: dict[str, Callable[[nn.Module, Inputs, Path], tuple[str, Run]]] = {
    "safetensors": _write_safetensors,
    "torch_export": _write_torch_export,
    "onnx": _write_onnx,
}
