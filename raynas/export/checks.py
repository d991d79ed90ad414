"""What an exported file computes, compared with its network."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils import _pytree as pytree

from raynas.exceptions import ExportError
from raynas.export.signature import Inputs
from raynas.storage.removal import scratch

__all__ = ["Trials", "difference", "leave_out_idle", "numbers", "outputs_of", "plain_copy", "run_alone"]

Trials = list[Inputs]


def outputs_of(network: Callable[..., Any], inputs: Inputs) -> list[Tensor]:
    """The tensors that a network returns, in the order in which they stand in its tuples, lists and dicts."""
    with torch.no_grad():
        found = pytree.tree_leaves(network(*(tensor.clone() for tensor in inputs)))
    return [value for value in found if isinstance(value, Tensor)]


def leave_out_idle(network: nn.Module, inputs: Inputs) -> None:
    """Take out the parts of a network that only training uses, such as auxiliary classifiers."""
    called: set[nn.Module] = set()
    handles = [m.register_forward_pre_hook(lambda module, args: called.add(module)) for m in network.modules()]
    outputs_of(network, inputs)
    for handle in handles:
        handle.remove()
    for name, child in list(network.named_children()):
        if called.isdisjoint(child.modules()):
            network._modules[name] = None
            try:
                outputs_of(network, inputs)
            except Exception:  # whatever a forward raises that reads the weights of a module without calling it
                network._modules[name] = child


def plain_copy(network: nn.Module) -> nn.Module:
    """A copy of a network in eval mode on the CPU, with plain weights.

    Weights that are computed from others, as by weight and spectral normalisation, become what they are now.
    """
    computed = {
        id(value): value.detach().clone()
        for module in network.modules()
        for value in module.__dict__.values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    copied: nn.Module = copy.deepcopy(network, computed).cpu().eval()
    for module in list(copied.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                with torch.no_grad():
                    parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        for hook in list(module._forward_pre_hooks.values()):
            remove = _OLD_HOOKS.get(f"{type(hook).__module__}.{type(hook).__name__}")
            if remove is not None:
                remove(module, vars(hook)["name"])
    return copied


_OLD_HOOKS: dict[str, Callable[..., Any]] = {
    "torch.nn.utils.weight_norm.WeightNorm": nn.utils.remove_weight_norm,
    "torch.nn.utils.spectral_norm.SpectralNorm": nn.utils.remove_spectral_norm,
}


def numbers(tensor: Tensor) -> Tensor:
    """The real numbers of a tensor, float64."""
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).double()


def difference(name: str, expected: list[Tensor], found: list[Tensor], tolerance: float) -> float:
    """The largest difference between what a network and its file compute.

    Args:
        name: Of the format.
        expected: Outputs of the network.
        found: Outputs of the file.
        tolerance: What is allowed, as a share of the largest value in the same output.

    Raises:
        ExportError: Other shapes, or a larger difference.
    """
    shapes = [[tuple(out.shape) for out in outputs] for outputs in (expected, found)]
    if shapes[0] != shapes[1]:
        raise ExportError(f"{name} gives outputs of the shapes {shapes[1]}, the network {shapes[0]}")
    worst = 0.0
    for ours, theirs in zip(expected, found, strict=True):
        if not ours.numel():
            continue
        apart = float((numbers(ours) - numbers(theirs)).abs().max())
        allowed = tolerance * float(numbers(ours).abs().max())
        if not apart <= allowed:  # also for NaN
            raise ExportError(f"{name} differs from the network by {apart:.3g}, more than {allowed:.3g}")
        worst = max(worst, apart)
    return worst


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
    given = [inputs[str(i)] for i in range(len(inputs))]
    if hasattr(module, "preprocess"):
        given = [module.preprocess(*given)]
    with torch.no_grad():
        found = pytree.tree_leaves(network(*given))
    tensors = [value.clone().contiguous() for value in found if isinstance(value, torch.Tensor)]
    save_file({str(i): value for i, value in enumerate(tensors)}, trial)
"""


def run_alone(folder: Path, trials: Trials, hidden: Sequence[str]) -> list[list[Tensor]]:
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
