"""The doctor: every check with the fault that it is there for, and the whole of it on a real Ray."""

import dataclasses
import tempfile
from pathlib import Path

import pytest
import ray
import torch
from helpers import tiny

from raynas.cli import doctor as doctor_module
from raynas.cli.doctor import (
    check_architecture,
    check_clock,
    check_entry,
    check_gpus,
    check_memory,
    check_nodes,
    check_settings,
    check_storage,
    check_token,
    check_versions,
)
from raynas.cli.main import main
from raynas.config.run import Config
from raynas.costs.memory import kept_for_backward, training_memory
from raynas.distributed import probe as survey_module
from raynas.distributed.placement import Placement
from raynas.distributed.probe import NodeFacts, probe_nodes
from raynas.exceptions import ConfigError
from raynas.nn.choice import decisions
from raynas.nn.subnet import derive
from raynas.runs.factory import prepare

GIB = 2**30
HEAD = NodeFacts("10.0.0.1", "3.11.7", "2.60.0", "2.14.0", memory=8 * GIB)
WORKER = dataclasses.replace(
    HEAD, address="10.0.0.2", python="3.11.9", gpus=2.0, physical=2, cuda="A", gpu_memory=80 * GIB
)
NODES = [HEAD, WORKER]
NEED = {"weights": 2 * GIB, "activations": 3 * GIB}


def with_fault(**changes):
    return [HEAD, dataclasses.replace(WORKER, **changes)]


@pytest.mark.parametrize(
    ("check", "fault", "level", "said"),
    [
        (check_nodes, {"error": "did not answer"}, "fail", "10.0.0.2 did not answer"),
        (check_versions, {"ray": "2.54.0"}, "fail", "ray: 2.60.0 on 10.0.0.1, 2.54.0 on 10.0.0.2"),
        (check_versions, {"torch": ""}, "fail", "torch: 2.14.0 on 10.0.0.1, none on 10.0.0.2"),
        (check_versions, {"python": "3.10.4"}, "fail", "python: 3.11.7 on 10.0.0.1, 3.10.4"),
        (check_gpus, {"cuda": "", "gpu_memory": 0}, "fail", "Ray counts GPUs on 10.0.0.2, and torch finds none"),
        (check_gpus, {"gpus": 1.0}, "warn", "10.0.0.2 has 2, Ray counts 1"),
        (check_clock, {"skew": -7.25}, "warn", "10.0.0.2 is 7.2 s behind"),
        (check_clock, {"skew": 7.25}, "warn", "10.0.0.2 is 7.2 s ahead of"),
    ],
)
def test_a_fault_of_a_node_is_found_and_named(check, fault, level, said):
    assert check(NODES).level == "ok"
    finding = check(with_fault(**fault))
    assert finding.level == level and said in finding.found and finding.advice


def test_a_folder_that_a_node_does_not_share_is_found(tmp_path, monkeypatch):
    wrong = with_fault(storage="does not see /runs as this machine does")
    finding = check_storage(wrong, Path("/runs"))
    assert (finding.level, "10.0.0.2 does not see /runs" in finding.found) == ("fail", True)
    assert check_storage(NODES, Path("/runs")).level == "ok"
    monkeypatch.setattr(survey_module.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(survey_module.time, "monotonic", iter([0.0, 1.0, 9.0]).__next__)
    assert "does not see" in survey_module._share(tmp_path / "elsewhere", "node")
    monkeypatch.undo()
    (tmp_path / "mark").touch()
    assert survey_module._share(tmp_path, "node") == "" and (tmp_path / "node").exists()
    (tmp_path / "taken").mkdir()
    assert "cannot write into" in survey_module._share(tmp_path, "taken")


def test_memory_is_compared_with_the_smallest_gpu_or_the_share_of_a_node():
    on_gpu, small = Placement(2, 1.0, 1.0), dataclasses.replace(WORKER, address="10.0.0.3", gpu_memory=6 * GIB)
    assert check_memory(NEED, on_gpu, NODES).level == "ok"
    assert check_memory(NEED, on_gpu, [*NODES, small]).level == "warn"  # 5 of 6 GiB
    finding = check_memory(NEED, Placement(2, 1.0, 0.5), [*NODES, small])
    assert finding.level == "fail" and "train.batch_size" in finding.advice and "and has 3.0 GiB" in finding.found
    assert check_memory(NEED, Placement(1, 1.0, 0.0), [HEAD]).level == "ok"
    assert check_memory(NEED, Placement(2, 1.0, 0.0), [HEAD]).level == "fail"
    assert check_memory(NEED, on_gpu, [HEAD]).level == "warn"  # nobody knows


def test_the_memory_of_a_step_is_what_autograd_keeps():
    torch.manual_seed(0)
    space = tiny.space(num_classes=4)
    widest = {name: "k3" for name in decisions(space)}
    real = kept_for_backward(derive(space, widest).train(), torch.rand(16, 1, 8, 8))
    # Wherever it starts, it finds the one with most layers; nothing was computed for it.
    for seed in range(3):
        need = training_memory(space, torch.zeros(1, 1, 8, 8), batch=16, paths=1, seed=seed)
        assert need["activations"] == pytest.approx(real, rel=0.01)
    assert need["gradients and momentum"] == 2 * 4 * sum(p.numel() for p in space.parameters())


def test_a_token_must_be_there_and_be_ones_own(tmp_path):
    off = check_token({"RAY_AUTH_MODE": "disabled"}, tmp_path)
    assert off.level == "warn" and "RAY_AUTH_MODE=token" in off.advice
    assert check_token({}, tmp_path).level == "warn"
    path = tmp_path / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("a-secret-of-mine")
    path.chmod(0o644)
    assert check_token({}, tmp_path).advice == f"chmod 600 {path}"
    path.chmod(0o600)
    found = [check_token({}, tmp_path), check_token({"RAY_AUTH_TOKEN": "a-secret-of-mine"}, Path("/nowhere"))]
    assert [f.level for f in found] == ["ok", "ok"] and "a-secret-of-mine" not in "".join(map(str, found))
    named = check_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}, tmp_path)
    assert named.level == "fail" and "none, which is no file" in named.found and "Unset it" in named.advice
    assert check_token({"RAY_AUTH_TOKEN_PATH": str(path)}, Path("/nowhere")).level == "ok"


@pytest.mark.parametrize(("asks", "level"), [(True, "ok"), (False, "warn"), (None, "warn")])
def test_a_cluster_that_lets_everyone_in_is_told(asks, level, monkeypatch):
    monkeypatch.setattr(doctor_module, "requires_token", lambda address: asks)
    finding = check_entry("10.0.0.1:6379")
    assert finding.level == level and bool(finding.advice) == (level == "warn")


def test_settings_and_data_that_cannot_be_are_one_line(monkeypatch):
    def refuse(config, trust):
        raise ConfigError("data set 'x'\nneeds the folder")

    monkeypatch.setattr(doctor_module, "prepare", refuse)
    finding, run = check_settings(Config())
    assert run is None and str(finding) == "fail  settings: data set 'x' needs the folder. Mend what it names"


def test_a_bug_is_told_from_illegal_settings(monkeypatch, tmp_path):
    def stumble(config, trust):
        return {}["nothing"]

    monkeypatch.setattr(doctor_module, "prepare", stumble)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    finding, run = check_settings(Config())
    (file,) = tmp_path.glob("raynas-*/error.log")
    assert run is None and finding.level == "fail" and "KeyError" in finding.found and str(file) in finding.advice
    assert 'return {}["nothing"]' in file.read_text()


class Stumbling(tiny.Tiny):
    """A network that can be counted, but not trained."""

    def forward(self, x):
        if self.training:
            raise RuntimeError("only for evaluation")
        return super().forward(x)


def test_a_network_that_does_not_train_is_found(tmp_path):
    config = Config(storage_path=str(tmp_path), name="run")
    sound = prepare(config, space=tiny.space(num_classes=4), data=tiny.data())
    assert check_architecture(sound).level == "ok"
    finding = check_architecture(prepare(config, space=Stumbling(4), data=tiny.data()))
    assert finding.level == "fail" and "only for evaluation" in finding.found


def test_the_doctor_visits_every_node_and_leaves_nothing(ray_session, tmp_path, capsys):
    command = [
        "doctor",
        "--space",
        "helpers.tiny:space",
        "--data",
        "helpers.tiny:arrays",
        "--storage-path",
        str(tmp_path),
        "--name",
        "x",
    ]
    assert main(command) == 0
    lines = [line.split(": ")[0].split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    levels = {name: level for level, name in lines}
    assert set(levels) == {
        "settings",
        "token",
        "Ray",
        "nodes",
        "versions",
        "storage",
        "space",
        "GPUs",
        "clock",
        "memory",
        "end to end",
    }
    assert {name for name, level in levels.items() if level != "ok"} == {"token"}  # tests run without one
    assert not list(tmp_path.iterdir())
    (facts,) = probe_nodes(tmp_path)
    assert facts.ray == ray.__version__ and facts.torch == torch.__version__ and not facts.error
    assert abs(facts.skew) < 0.5 and facts.memory > 2**20 and not facts.cuda


def test_the_doctor_fails_where_it_must_and_says_what_to_do(ray_session, tmp_path, capsys):
    (tmp_path / "file").touch()
    command = [
        "doctor",
        "--space",
        "helpers.tiny:nothing",
        "--data",
        "helpers.tiny:arrays",
        "--storage-path",
        str(tmp_path / "file"),
    ]
    assert main(command) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fail")]
    assert len(failed) == 2 and "has no 'nothing'" in failed[0] and "Take another --storage-path" in failed[1]
