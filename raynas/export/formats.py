"""A found network as files that need no RayNAS: plain PyTorch code with weights, ``torch.export``, ONNX.

Every file is loaded back and compared with the network before it is put in place; what does not agree is not written.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.util
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from raynas.exceptions import CodegenError, ExportError
from raynas.export.checks import Trials, difference, leave_out_idle, numbers, outputs_of, plain_copy, run_alone
from raynas.export.failures import explanation, open_length, quiet
from raynas.export.signature import Inputs, Signature, metadata_text
from raynas.export.source import source_of, with_code
from raynas.export.traced import any_batch
from raynas.storage.atomic import put_in_place, replace_text, write_json
from raynas.storage.removal import MARKER, own, scratch

__all__ = ["FORMATS", "ExportReport", "ExportedFile", "export", "rehearse"]

FORMATS = ("safetensors", "torch_export", "onnx")

Run = Callable[[Trials], list[list[Tensor]]]

_BATCHES = (1, 3)
_TOLERANCE = 1e-4
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
    example_inputs: tuple[Tensor, ...] | Signature,
    folder: str | Path,
    formats: Sequence[str] = ("safetensors", "torch_export"),
    tolerance: float = _TOLERANCE,
) -> ExportReport:
    """Write a network in formats that need no RayNAS, and check each file against the network.

    - ``safetensors``: ``model.py``, readable code on torch and safetensors alone with a function ``load()``, and its
      weights ``model.safetensors``. Checked in a process of its own that can import neither RayNAS nor the packages
      in which the network's modules are defined.
    - ``torch_export``: ``model.pt2`` for ``torch.export.load``.
    - ``onnx``: ``model.onnx``, checked in onnxruntime. Needs the extra ``raynas[onnx]``.

    All work for any number of images at once. A format that fails does not stop the others.

    Args:
        subnet: What ``derive`` returned, or any module; it is copied, and the copy put into eval mode on the CPU.
        example_inputs: What its ``forward`` is called with; the first dimension of each is the batch. With a
            :class:`raynas.export.signature.Signature` the files also say how raw inputs are prepared and what the
            outputs mean: in code, in metadata, in ``signature.json`` and in ``README.md``.
        folder: Where the files go; made if it does not exist.
        formats: Which of :data:`FORMATS`.
        tolerance: Largest allowed difference on random inputs, as a share of the largest value in the same output.

    Raises:
        ExportError: Unknown format, missing package, a network that a format cannot express, or a file whose results
            differ. Its attribute ``report`` says what was written nevertheless.
    """
    signature = example_inputs if isinstance(example_inputs, Signature) else Signature(tuple(example_inputs))
    _check_request(formats, signature.example)
    job = _Job(subnet, signature, tolerance)
    folder = Path(folder)
    own(folder)
    files, failures = [], []
    for name in formats:
        try:
            files.append(job.write(name, folder))
        except ExportError as error:
            failures.append(str(error))
    report = ExportReport(tuple(files))
    if files and (text := signature.readme(f"{job.title}, exported by RayNAS", [file.format for file in files])):
        replace_text(folder / "README.md", text, timeout=0)
        for name, value in {"signature.json": signature.metadata, **signature.files}.items():
            write_json(folder / name, value)
    if failures:
        written = " and ".join(str(file.path) for file in files)
        failed = ExportError("; ".join(failures) + (f"; written: {written}" if files else ""))
        failed.report = report
        raise failed
    return report


def rehearse(subnet: nn.Module, example_inputs: Inputs | Signature, formats: Sequence[str]) -> list[str]:
    """Try whether :func:`export` will work, as far as that can be seen in seconds. Nothing is kept.

    Args:
        subnet: With any weights.
        example_inputs: As for :func:`export`.
        formats: As for :func:`export`.

    Returns:
        For every format that will not work, why.

    Raises:
        ExportError: An unknown format, or inputs that are no examples.
    """
    signature = example_inputs if isinstance(example_inputs, Signature) else Signature(tuple(example_inputs))
    _check_request(formats, signature.example)
    try:
        job = _Job(subnet, signature, _TOLERANCE)
    except ExportError as error:
        return [str(error)]
    failures = []
    with scratch() as folder:
        for name in formats:
            try:
                main, run = _WRITERS[name](job, folder)
                with _explained(name, job.network):
                    found = _run_here(folder / main, job) if name == "safetensors" else run(job.trials[:1])[0]
                difference(name, job.expected[0], found, job.tolerance)
            except ExportError as error:
                failures.append(str(error))
    return failures


def _run_here(file: Path, job: _Job) -> list[Tensor]:
    """What ``model.py`` computes, in this process: it is checked alone when it is exported."""
    spec = importlib.util.spec_from_file_location("exported_model", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return outputs_of(module.load(), job.signature.prepared(job.trials[0]))


def _check_request(formats: Sequence[str], example_inputs: Inputs) -> None:
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ExportError(f"unknown format {unknown[0] if unknown else None!r}; legal ones: {', '.join(FORMATS)}")
    if not example_inputs or any(tensor.ndim == 0 or not tensor.numel() for tensor in example_inputs):
        raise ExportError("example_inputs must be tensors with a batch as their first dimension, and not empty")


class _Job:
    """A network to write, and what its files must compute.

    Args:
        subnet: As for :func:`export`.
        signature: How it is fed.
        tolerance: As for :func:`export`.
    """

    def __init__(self, subnet: nn.Module, signature: Signature, tolerance: float) -> None:
        self.network = plain_copy(subnet)
        example = tuple(tensor.detach().cpu() for tensor in signature.example)
        self.signature = dataclasses.replace(signature, example=example)
        self.tolerance = tolerance
        self.title = type(self.network).__name__
        self.trials = [self.signature.random(batch) for batch in _BATCHES]
        prepared = [self.signature.prepared(inputs) for inputs in self.trials]
        leave_out_idle(self.network, prepared[0])
        self.expected = [outputs_of(self.network, inputs) for inputs in prepared]
        values = [float(numbers(out).abs().max()) for outputs in self.expected for out in outputs if out.numel()]
        self.scale = max(values, default=0.0)
        if not math.isfinite(self.scale):
            raise ExportError("the network gives NaN or infinity on random inputs: there is nothing to compare with")

    def write(self, name: str, folder: Path) -> ExportedFile:
        """Write one format and compare what it computes."""
        # A draft beside the target, so that a file that failed its check never stands under its final name.
        with scratch(".draft-", folder) as draft:
            main, run = _WRITERS[name](self, draft)
            with _explained(name, self.network):
                found = run(self.trials)
            pairs = zip(self.expected, found, strict=True)
            worst = max(difference(name, ours, theirs, self.tolerance) for ours, theirs in pairs)
            written = sorted(file for file in draft.iterdir() if file.name != MARKER)
            size = sum(file.stat().st_size for file in written)
            for file in written:
                put_in_place(file, folder / file.name)
        return ExportedFile(name, folder / main, worst, self.scale, size)

    def graph(self) -> tuple[nn.Module, Inputs]:
        """The module that is written as a graph, and an example of its inputs."""
        module = self.signature.in_graph(copy.deepcopy(self.network)).eval()
        return module, self.signature.graph_inputs(self.trials[-1])


def _write_safetensors(job: _Job, folder: Path) -> tuple[str, Run]:
    network = copy.deepcopy(job.network)
    # Asked for before the tracing, which may add attributes.
    packages = {type(module).__module__.split(".")[0] for module in network.modules()}
    hidden = sorted({"raynas", "spaces", "trainables", *packages} - {"torch", "builtins", "__main__"})
    try:
        text, state = source_of(network, len(job.signature.example), job.signature.prepared(job.trials[-1]))
    except CodegenError as error:
        raise ExportError(_failure("safetensors", network, str(error))) from error
    replace_text(folder / "model.py", with_code(text, job.signature.code), timeout=0)
    for name, value in job.signature.files.items():
        write_json(folder / name, value)
    save_file(state, folder / "model.safetensors", metadata=metadata_text(job.signature) or None)
    return "model.py", lambda trials: run_alone(folder, trials, hidden)


def _write_torch_export(job: _Job, folder: Path) -> tuple[str, Run]:
    path = folder / "model.pt2"
    network, inputs = job.graph()
    notes = {"signature.json": json.dumps(job.signature.metadata)} if job.signature.metadata else None
    with _explained("torch_export", job.network):
        with open_length(job.network):
            program = torch.export.export(network, inputs, dynamic_shapes=any_batch(inputs))
        torch.export.save(program, path, extra_files=notes)
        loaded = torch.export.load(path).module()
    return path.name, lambda trials: [outputs_of(loaded, job.signature.graph_inputs(inputs)) for inputs in trials]


def _write_onnx(job: _Job, folder: Path) -> tuple[str, Run]:
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"onnx needs {' and '.join(missing)}: pip install 'raynas[onnx]'")
    import onnx
    import onnxruntime

    path = folder / "model.onnx"
    network, inputs = job.graph()
    # A single file where the format's limit of 2 GB allows it.
    large = sum(value.nbytes for value in network.state_dict().values()) > 1.8e9
    with _explained("onnx", job.network), open_length(job.network):
        torch.onnx.export(
            network,
            inputs,
            path,
            dynamo=True,
            dynamic_shapes=any_batch(inputs),
            external_data=large,
            verbose=False,
            input_names=job.signature.input_names or None,
            output_names=job.signature.output_names or None,
        )
        if job.signature.metadata:
            graph = onnx.load(path, load_external_data=False)
            onnx.helper.set_model_props(graph, metadata_text(job.signature))
            onnx.save(graph, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    fed = [value.name for value in session.get_inputs()]

    def run(inputs: Inputs) -> list[Tensor]:
        given = {name: value.numpy() for name, value in zip(fed, inputs, strict=True)}
        return [torch.from_numpy(value) for value in session.run(None, given)]

    return path.name, lambda trials: [run(job.signature.graph_inputs(inputs)) for inputs in trials]


@contextlib.contextmanager
def _explained(name: str, network: nn.Module) -> Iterator[None]:
    """Turn whatever an exporter raises into one line that says which format failed and why."""
    try:
        with quiet():
            yield
    except ExportError:
        raise
    except Exception as error:  # the exporters document no common class
        raise ExportError(_failure(name, network, explanation(error, network))) from error


def _failure(name: str, network: nn.Module, reason: str) -> str:
    others = " and ".join(other for other in FORMATS if other != name)
    return f"{name} cannot express {type(network).__name__}: {reason}; {others} may still work"


_WRITERS: dict[str, Callable[[_Job, Path], tuple[str, Run]]] = {
    "safetensors": _write_safetensors,
    "torch_export": _write_torch_export,
    "onnx": _write_onnx,
}
