"""Networks as text: what people write in a forward comes out as plain torch code, or is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from raynas.exceptions import CodegenError, ExportError
from raynas.export import formats as exporting
from raynas.export.formats import export
from raynas.export.fx_printer import value_text
from raynas.export.source import source_of
from raynas.nn.choice import Choice
from raynas.nn.subnet import derive


@pytest.fixture
def images() -> tuple[Tensor]:
    return (torch.randn(2, 3, 8, 8),)


class Many(nn.Module):
    """What people write: functions, methods, indices, constants, several inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.norm = nn.LayerNorm(6, eps=1e-3)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.GELU("tanh"), nn.Sequential()])
        self.values = nn.Linear(6, 6, bias=False)

    def forward(self, tokens: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.norm(self.embed(tokens)) + torch.arange(6) / 6
        for layer in self.layers:
            x = x + layer(x)
        x = self.attention(x, x, self.values(x), need_weights=False)[0]
        x = torch.where(weights[..., None] > 0, x, float("-inf")).clamp(min=-4)
        logits = F.linear(x[:, -1], self.embed.weight)
        x = x.masked_fill(x > 3, 0.0)
        scores = torch.einsum("bij,bkj->bik", x, x).to(torch.float64)
        return logits, {"scores": scores.softmax(-1), "rest": -x[:, ::2, None].squeeze(2), "positive": x > 0}


@pytest.mark.slow
def test_many_ways_of_writing_a_forward(tmp_path: Path) -> None:
    torch.manual_seed(0)
    report = export(Many(), (torch.randint(7, (2, 5)), torch.randn(2, 5)), tmp_path)
    assert [file.format for file in report.files] == ["safetensors", "torch_export"]
    assert max(file.difference for file in report.files) < 1e-5


class ConvReLU(nn.Sequential):
    """A sequence by another name, as in many model zoos."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3), nn.ReLU())


class Zoo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvReLU(3, 4)
        self.drop = StochasticDepth(0.5, "row")

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.shape[1] == 3, "three channels")
        return self.drop(self.conv(x)) * 1e-9


@pytest.mark.slow
def test_habits_of_torchvision(images: tuple[Tensor], tmp_path: Path) -> None:
    export(Zoo(), images, tmp_path, ["safetensors"])
    text = (tmp_path / "model.py").read_text()
    assert "        x = self.conv(x)" in text.splitlines() and "torchvision" not in text


@pytest.mark.slow
def test_small_outputs_are_compared_no_less_strictly(
    images: tuple[Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = exporting.source_of
    monkeypatch.setattr(
        exporting, "source_of", lambda *a: (right(*a)[0].replace("* 1e-09", "* 1.001e-09"), right(*a)[1])
    )
    with pytest.raises(ExportError, match="safetensors differs from the network by"):
        export(Zoo(), images, tmp_path)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class Foreign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _wrapped(x)


def _wrapped(x: Tensor) -> Tensor:
    return x * (2 if float(x.sum()) > 0 else 1)


torch.fx.wrap("_wrapped")


@pytest.mark.parametrize(
    "network, reason",
    [(Branches(), "symbolically traced variables cannot be used as"), (Foreign(), "forward calls .*_wrapped")],
)
def test_what_cannot_be_written_is_refused(
    network: nn.Module, reason: str, images: tuple[Tensor], tmp_path: Path
) -> None:
    with pytest.raises(
        ExportError, match=rf"(?s)safetensors cannot express .*{reason}.*torch_export and onnx may still work"
    ) as caught:
        export(network, images, tmp_path, ["safetensors"])
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x))


class Named(nn.Module):
    """A layer, a parameter and an option under names that may be anything."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.stages = nn.ModuleDict({name: nn.ModuleDict({"conv": nn.Conv2d(3, 3, 1)}), "last": nn.Identity()})
        self.block = Choice({name: Twice(), "other": nn.Identity()})
        self.register_parameter(f"{name}x", nn.Parameter(torch.ones(1, 3, 1, 1)))
        self.add_module(f"{name}y", nn.Conv2d(3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.stages[self.name]["conv"](x)) * getattr(self, f"{self.name}x")
        return getattr(self, f"{self.name}y")(x)


class Parallel(nn.Module):
    """Several networks side by side: all of them are checked in one process."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [network(x) for network in self.networks]


NAMES = ["plain", "3x3 conv", "class", "5\u00d75", "名前", 'an "old" one', "back\\slash", "two\nlines", "tab\t",
         "__private", "ﬁ", "nul\0", "{brace}", '"""', "'", "\u2028", "\\N{BULLET}",
         '": 0})\nfrom os import makedirs; makedirs(PLACE)\nx = ({"',
         "a\nfrom os import makedirs; makedirs(PLACE)\n#", "#"]  # fmt: skip


@pytest.mark.slow
def test_names_of_modules_are_data(images: tuple[Tensor], tmp_path: Path) -> None:
    place = tmp_path / "attacked"
    names = [name.replace("PLACE", repr(str(place))) for name in NAMES]
    torch.manual_seed(0)
    network = Parallel([derive(Named(name), {"block": name}) for name in names])
    report = export(network, images, tmp_path / "out", ["safetensors"])
    assert report.files[0].difference < 1e-6 and not place.exists()


@pytest.mark.slow
def test_names_of_classes_are_data(images: tuple[Tensor], tmp_path: Path) -> None:
    names = ['x"""\nimport os\nos.makedirs(PLACE)\n"""', "a b", "é", "\\"]
    kinds = [type(name.replace("PLACE", repr(str(tmp_path / "attacked"))), (Zoo,), {}) for name in names]
    export(Parallel([kind() for kind in kinds]), images, tmp_path / "out", ["safetensors"])
    assert not (tmp_path / "attacked").exists()


class Keyword(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(**{"dim=print(1), keepdim": True})  # type: ignore[call-overload,no-any-return]


class Attribute(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return getattr(x, "T\nimport os")  # type: ignore[no-any-return]


class Method(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return getattr(x, "abs()\nimport os")()  # type: ignore[no-any-return]


class Liar(int):
    """A number that says to be code."""

    def __repr__(self) -> str:
        return "__import__('os').getpid()"


class Lies(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(Liar(1), keepdim=True) + torch.add(x, Liar(2))


def test_what_is_no_name_in_python_is_refused() -> None:
    for network in (Keyword(), Attribute(), Method()):
        with pytest.raises(CodegenError, match="which is no name in Python"):
            source_of(network, 1)
    text, _ = source_of(Lies(), 1)
    assert "getpid" not in text and "x.sum(1, keepdim=True)" in text
    assert value_text(complex("nan"), {}) == 'complex(float("nan"), 0.0)'
