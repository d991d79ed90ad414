"""How an exported network is fed and what it answers: code for ``model.py``, metadata, a README."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raynas.export.fx_printer import text_literal

__all__ = ["ImageSignature", "Inputs", "Signature", "code_blocks", "metadata_text"]

Inputs = tuple[Tensor, ...]

_FEW = 20
"""So many classes are listed in a README."""


@dataclass(frozen=True)
class Signature:
    """A network that takes tensors as they are, of which nothing else is known.

    Args:
        example: What its ``forward`` is called with; the first dimension of each is the batch.
    """

    example: Inputs

    def random(self, batch: int) -> Inputs:
        """Random inputs as a user has them: normal numbers, or where the type has none, values of the example."""
        generator = torch.Generator().manual_seed(batch)

        def draw(tensor: Tensor) -> Tensor:
            shape = (batch, *tensor.shape[1:])
            if tensor.is_floating_point():
                return torch.randn(shape, generator=generator).to(tensor.dtype)
            return tensor.flatten()[torch.randint(tensor.numel(), shape, generator=generator)]

        return tuple(map(draw, self.example))

    def prepared(self, inputs: Inputs) -> Inputs:
        """The same inputs as the network takes them."""
        return inputs

    def in_graph(self, network: nn.Module) -> nn.Module:
        """The module that torch.export and ONNX write: it prepares its inputs itself, where that is wanted."""
        return network

    def graph_inputs(self, inputs: Inputs) -> Inputs:
        """What that module is called with."""
        return inputs

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs of an ONNX graph; none: those of the arguments of ``forward``."""
        return ()

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs likewise."""
        return ()

    @property
    def code(self) -> str:
        """What ``model.py`` holds besides the network: Python statements."""
        return ""

    @property
    def metadata(self) -> dict[str, Any]:
        """What the other formats and ``signature.json`` hold of it: values as JSON has them."""
        return {}

    @property
    def files(self) -> Mapping[str, Any]:
        """Data that ``model.py`` reads, by the names of JSON files beside it."""
        return {}

    def readme(self, title: str, formats: Collection[str]) -> str:
        """The text of ``README.md``; empty where nothing is known."""
        return ""


class _Normalised(nn.Module):
    """A network behind the normalisation of its inputs, uint8 [N, C, H, W]."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("pixel_mean", (torch.tensor(mean) * 255).view(-1, 1, 1))
        self.register_buffer("pixel_scale", 1 / (torch.tensor(std) * 255).view(-1, 1, 1))

    pixel_mean: Tensor
    pixel_scale: Tensor

    def forward(self, images: Tensor) -> Any:
        return self.network((images.float() - self.pixel_mean) * self.pixel_scale)


@dataclass(frozen=True)
class ImageSignature(Signature):
    """A network that classifies images.

    Args:
        example: One batch, float32 [N, C, H, W].
        mean: Mean of each channel in training, pixels taken as 0..1.
        std: Standard deviation likewise, above 0.
        classes: The name of each class, by its index.
        normalise: Whether the graphs of torch.export and ONNX take raw pixels and normalise them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    normalise: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of an image."""
        return tuple(self.example[0].shape[1:])

    def random(self, batch: int) -> Inputs:
        """Random pixels: uint8 [batch, C, H, W]."""
        generator = torch.Generator().manual_seed(batch)
        return (torch.randint(256, (batch, *self.shape), generator=generator, dtype=torch.uint8),)

    def prepared(self, inputs: Inputs) -> Inputs:
        """Normalised images, float32 [N, C, H, W]."""
        return (_Normalised(nn.Identity(), self.mean, self.std)(inputs[0]),)

    def in_graph(self, network: nn.Module) -> nn.Module:
        """The network behind the normalisation of its inputs."""
        return _Normalised(network, self.mean, self.std) if self.normalise else network

    def graph_inputs(self, inputs: Inputs) -> Inputs:
        """Raw pixels, or normalised ones where the graph does not normalise."""
        return inputs if self.normalise else self.prepared(inputs)

    @property
    def input_names(self) -> tuple[str, ...]:
        """One input, ``images``."""
        return ("images",)

    @property
    def output_names(self) -> tuple[str, ...]:
        """One output, ``logits``."""
        return ("logits",)

    @property
    def metadata(self) -> dict[str, Any]:
        """Shape, layout, type and range of the inputs, the normalisation and the classes."""
        inside = "inside the graph" if self.normalise else "before the graph"
        return {
            "input": "images",
            "layout": "NCHW",
            "input_shape": list(self.shape),
            "dtype": "uint8" if self.normalise else "float32",
            "range": "0..255" if self.normalise else "normalised",
            "normalisation": f"(images / 255 - mean) / std, {inside}",
            "mean": list(self.mean),
            "std": list(self.std),
            "output": "logits",
            "classes": list(self.classes),
        }

    @property
    def code(self) -> str:
        """``classes``, ``input_shape``, ``layout`` and ``preprocess``."""
        classes = "".join(f"    {text_literal(name)},\n" for name in self.classes)
        return _IMAGES.format(
            classes=f"(\n{classes})",
            shape=self.shape,
            mean=self.mean,
            std=self.std,
            size=", ".join(map(str, self.shape)),
        )

    def readme(self, title: str, formats: Collection[str]) -> str:
        """Three lines that load and predict, for each format."""
        size = ", ".join(map(str, self.shape))
        if self.normalise:
            graph = "images"
        else:
            graph = f"((images / 255 - {_column(self.mean)}) / {_column(self.std)}).astype('float32')"
        lines = {
            "safetensors": [
                "from model import load, preprocess",
                "network = load()",
                "predicted = network(preprocess(images)).argmax(1)",
            ],
            "torch_export": [
                "import torch",
                'network = torch.export.load("model.pt2").module()',
                f"predicted = network(torch.as_tensor({graph})).argmax(1)",
            ],
            "onnx": [
                "import onnxruntime",
                'session = onnxruntime.InferenceSession("model.onnx")',
                f'predicted = session.run(["logits"], {{"images": {graph}}})[0].argmax(1)',
            ],
        }
        what = (
            f"`images` is a NumPy array of raw pixels, uint8 [N, {size}], values 0..255, layout NCHW (image, channel, "
            "row, column). `predicted` is the index of the class of each image."
        )
        return "\n".join([f"# {title}", "", what, "", *code_blocks(lines, formats), *self._about(formats)])

    def _about(self, formats: Collection[str]) -> list[str]:
        """The end of the README: normalisation and classes."""
        where = (
            "`model.pt2` and `model.onnx` do that themselves" if self.normalise else "no file but `model.py` does it"
        )
        held = "`signature.json`" + (" and `classes` in `model.py`" if "safetensors" in formats else "")
        lines = [
            "## Inputs and classes",
            "",
            f"The network was trained on `(images / 255 - mean) / std` with the mean {list(self.mean)} and the "
            f"standard deviation {list(self.std)} of each channel; {where}. `preprocess` of `model.py` also takes "
            f"float images in 0..1. The names of the classes are in {held}.",
            "",
        ]
        if len(self.classes) <= _FEW:
            lines += [
                "| index | class |",
                "|---|---|",
                *(f"| {i} | {_cell(name)} |" for i, name in enumerate(self.classes)),
                "",
            ]
        return lines


def _cell(text: str) -> str:
    """A text in a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _column(values: tuple[float, ...]) -> str:
    """Values of the channels as an expression that is broadcast over rows and columns."""
    return str(values[0]) if len(values) == 1 else f"numpy.reshape({list(values)}, (-1, 1, 1))"


_TITLES = {
    "safetensors": "PyTorch: `model.py` and `model.safetensors` (need torch and safetensors)",
    "torch_export": "torch.export: `model.pt2` (needs torch)",
    "onnx": "ONNX Runtime: `model.onnx`",
}


def code_blocks(lines: Mapping[str, list[str]], formats: Collection[str]) -> list[str]:
    """The code of each format that was written, in a block of its own, to be run in the folder of the files."""
    text: list[str] = []
    for name in formats:
        code = lines[name]
        if any("numpy." in line for line in code):
            code = ["import numpy", *code]
        text += [f"## {_TITLES[name]}", "", "```python", *code, "```", ""]
    return text


_IMAGES = '''
classes = {classes}
"""The name of each class, by its index in the outputs."""
input_shape = {shape}
"""Channels, height and width of an image."""
layout = "NCHW"
"""Inputs are [images, channels, rows, columns]."""
MEAN, STD = {mean}, {std}
"""Of each channel of the training images, pixels taken as 0..1."""


def preprocess(images):
    """Raw images as the network takes them.

    Args:
        images: A tensor or a NumPy array [N, {size}] for any N, or one image [{size}]: uint8 or other integers in
            0..255, or floating-point numbers in 0..1.

    Returns:
        float32 [N, {size}], normalised.
    """
    images = torch.as_tensor(images)
    if tuple(images.shape) == input_shape:
        images = images[None]
    if images.ndim != 4 or tuple(images.shape[1:]) != input_shape:
        found, wanted = tuple(images.shape), ("N", *input_shape)
        nhwc = (*input_shape[1:], input_shape[0])
        cure = ": bring channels to the front, images.permute(0, 3, 1, 2)" if found[1:] == nhwc else ""
        raise ValueError(f"images must have the shape {{wanted}}, layout {{layout}}; these have {{found}}{{cure}}")
    highest = 1 if images.is_floating_point() else 255
    if images.numel() and not (0 <= images.min() and images.max() <= highest):
        cure = "give pixels of 0..255 as uint8, images.to(torch.uint8)" if highest == 1 else "give them as uint8"
        found = f"{{float(images.min())}}..{{float(images.max())}}"
        raise ValueError(f"{{images.dtype}} images must be in 0..{{highest}}, these are in {{found}}: {{cure}}")
    pixels = images.float() * (255 // highest)
    mean, std = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (MEAN, STD))
    return (pixels - mean * 255) * (1 / (std * 255))

'''


def metadata_text(signature: Signature) -> dict[str, str]:
    """The metadata as text, as ONNX and safetensors keep them: what is no text is JSON."""
    return {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in signature.metadata.items()}
