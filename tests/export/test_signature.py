"""An exported network says how it is fed: the lines of its README predict from raw inputs what the run has measured."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny
from raynas.spaces.recurrent import recurrent_small
from torch import nn

from raynas.config.run import ExportConfig
from raynas.data.dataset import Dataset, Split
from raynas.data.loading import load
from raynas.data.text import of_words
from raynas.exceptions import ExportError
from raynas.export.formats import FORMATS, export
from raynas.export.text_signature import TextSignature
from raynas.nn.choice import decisions
from raynas.nn.subnet import derive
from raynas.tasks.classification import Images
from raynas.tasks.language_modeling import Language

PATH = {"blocks.0": "k3", "blocks.1": "skip", "blocks.2": "skip"}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    found = load("digits")
    assert isinstance(found, Dataset)
    return dataclasses.replace(found, class_names=tuple(f'the "{number}"' for number in range(10)))


@pytest.fixture(scope="module")
def network(digits: Dataset) -> nn.Module:
    """Trained as long as normalised inputs make a difference."""
    torch.manual_seed(0)
    network = derive(tiny.space(10, width=16), PATH)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(6):
        for inputs, targets in Images(digits).batches(digits.train, 64, torch.device("cpu")):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs), targets).backward()
            optimizer.step()
    return network.eval()


def accuracy(network: nn.Module, data: Dataset) -> float:
    """As a run evaluates a network on the test images."""
    task, correct = Images(data), 0.0
    for inputs, targets in task.batches(data.test, 250, torch.device("cpu")):
        with torch.no_grad():
            correct += float(task.evaluate_batch(network, inputs, targets, None)[0][0])
    return correct / len(data.test)


def blocks(folder: Path) -> list[str]:
    """The code of a README, in its order."""
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def run_lines(lines: str, folder: Path, before: str, after: str) -> Any:
    """Run lines in their folder, in a process that can import neither RayNAS nor the code of a user."""
    hidden = "import sys; sys.modules.update(dict.fromkeys(['raynas', 'spaces', 'helpers', 'trainables']))"
    code = f"{hidden}\nsys.path.insert(0, '.')\nimport json, numpy\n{before}\n{lines}\n{after}"
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def importable(folder: Path) -> ModuleType:
    import importlib.util

    spec = importlib.util.spec_from_file_location("exported", folder / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lines_of_the_readme_predict_from_raw_pixels(digits: Dataset, network: nn.Module, tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    task = Images(digits)
    export(network, task.export_signature((task.example(2),), ExportConfig()), tmp_path, FORMATS)
    measured = accuracy(network, digits)
    assert measured > 0.8
    with torch.no_grad():
        wrong = (network(digits.test.inputs.float()).argmax(1) == digits.test.targets).float().mean()
    assert wrong < measured - 0.2, "the network does not need its normalisation: the test shows nothing"
    np.save(tmp_path / "images.npy", digits.test.inputs.numpy())
    targets = digits.test.targets.numpy()
    found = blocks(tmp_path)
    assert len(found) == 3
    for lines in found:
        assert len(lines.splitlines()) == 3
        predicted = run_lines(
            lines, tmp_path, "images = numpy.load('images.npy')", "print([int(p) for p in predicted])"
        )
        assert np.mean(np.array(predicted) == targets) == pytest.approx(measured, abs=1e-9)
    kept = json.loads((tmp_path / "signature.json").read_text(encoding="utf-8"))
    assert kept["classes"] == list(digits.class_names) and kept["layout"] == "NCHW"
    props = "print(json.dumps(session.get_modelmeta().custom_metadata_map))"
    metadata = run_lines(found[2], tmp_path, "images = numpy.load('images.npy')", props)
    assert json.loads(metadata["classes"]) == kept["classes"] and json.loads(metadata["mean"]) == list(digits.mean)
    notes = {"signature.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=notes)
    assert json.loads(notes["signature.json"]) == kept


def test_graphs_without_the_normalisation(digits: Dataset, network: nn.Module, tmp_path: Path) -> None:
    task = Images(digits)
    signature = task.export_signature((task.example(2),), ExportConfig(normalise=False))
    export(network, signature, tmp_path, ["torch_export"])
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    (prepared,) = signature.prepared((digits.test.inputs[:7],))
    torch.testing.assert_close(loaded(prepared), network(prepared))
    np.save(tmp_path / "images.npy", digits.test.inputs.numpy())
    (lines,) = blocks(tmp_path)
    predicted = run_lines(lines, tmp_path, "images = numpy.load('images.npy')", "print([int(p) for p in predicted])")
    right = np.mean(np.array(predicted) == digits.test.targets.numpy())
    assert right == pytest.approx(accuracy(network, digits), abs=0.01)


def test_preprocess_takes_any_raw_images_and_refuses_others(
    digits: Dataset, network: nn.Module, tmp_path: Path
) -> None:
    task = Images(digits)
    export(network, task.export_signature((task.example(2),), ExportConfig()), tmp_path, ["safetensors"])
    model, images = importable(tmp_path), digits.test.inputs[:5]
    some = Split(images, digits.test.targets[:5])
    ((expected, _),) = task.batches(some, 5, torch.device("cpu"))
    for given in (images, images.numpy(), images.long(), images.float() / 255, images.double().numpy() / 255):
        torch.testing.assert_close(model.preprocess(given), expected)
    assert model.preprocess(images[0]).shape == (1, 1, 8, 8) and model.preprocess(images[:0]).shape == (0, 1, 8, 8)
    assert model.input_shape == (1, 8, 8) and model.layout == "NCHW" and model.classes == digits.class_names
    for wrong, message in (
        (
            images.float(),
            r"float32 images must be in 0\.\.1, these are in 0\.0\.\.255\.0: give pixels of 0\.\.255 as uint8",
        ),
        (images.permute(0, 2, 3, 1), r"these have \(5, 8, 8, 1\): bring channels to the front, images\.permute"),
        (images[:, :, :4], r"must have the shape \('N', 1, 8, 8\), layout NCHW; these have \(5, 1, 4, 8\)"),
        (images.long() - 300, "must be in 0..255"),
    ):
        with pytest.raises(ValueError, match=message):
            model.preprocess(wrong)


TEXT = "the cat sat on the mat\nthe dog sat on the cat\n" * 40


def test_a_text_model_reads_text(tmp_path: Path) -> None:
    words = [word for line in TEXT.splitlines() for word in (*line.split(), "<eos>")]
    data = of_words("cats", {"train": words[:400], "test": words[400:]}, 40)
    torch.manual_seed(0)
    space = recurrent_small(num_classes=data.classes, units=8)
    network = derive(space, {name: options[0] for name, options in decisions(space).items()}).eval()
    task = Language(data)
    module, example = task.export_model(network)
    signature = task.export_signature(example, ExportConfig())
    assert isinstance(signature, TextSignature)
    export(module, signature, tmp_path, FORMATS[:2])
    expected = network(torch.tensor([[data.vocabulary.index(w) for w in ("the", "cat", "sat", "<eos>", "<unk>")]]))[0][
        0
    ]
    first, second = blocks(tmp_path)
    text = "text = 'the cat sat\\nzebra'"
    predicted = run_lines(first, tmp_path, text, "print(json.dumps(predicted))")
    assert predicted == data.vocabulary[int(expected[-1].argmax())]
    numbers = "from model import tokenise; words = tokenise('the cat sat\\nzebra')"
    logits = run_lines(second, tmp_path, numbers, "print(logits[0].tolist())")
    torch.testing.assert_close(torch.tensor(logits), expected[-1])


def test_paragraphs_are_read_as_they_were_trained_on(tmp_path: Path) -> None:
    data = load("pydoc_topics", limit=3000)
    task = Language(data)  # type: ignore[arg-type]
    torch.manual_seed(0)
    space = recurrent_small(num_classes=data.classes, units=4)
    network = derive(space, {name: options[0] for name, options in decisions(space).items()}).eval()
    module, example = task.export_model(network)
    export(module, task.export_signature(example, ExportConfig()), tmp_path, ["safetensors"])
    model = importable(tmp_path)
    words = [model.vocabulary[number] for number in model.tokenise("The the.\n\nXyzzy")]
    assert words == ["the", "the", ".", "<eos>", "<unk>"]


def test_one_format_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ExportError, match=r"onnx needs onnxscript: pip install 'raynas\[onnx\]'") as caught:
        export(network, (torch.zeros(2, 1, 8, 8),), tmp_path, ["onnx", "torch_export"])
    assert [file.format for file in caught.value.report.files] == ["torch_export"]
    assert (tmp_path / "model.pt2").exists()
