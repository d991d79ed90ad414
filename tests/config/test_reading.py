"""Settings that YAML leaves ambiguous are refused with the file and the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from raynas.config.loading import dump, load
from raynas.config.run import Config
from raynas.exceptions import ConfigError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epochs: 3}\nseed: 1\ntrain: {lr: 0.1}\n", r"line 3: 'train' stands twice, first in line 1"),
        ("search:\n  slices: 3\n  slices: 4\n", r"line 3: 'search\.slices' stands twice, first in line 2"),
        ("space_args: {a: {b: 1, b: 2}}\n", r"line 1: 'space_args\.a\.b' stands twice"),
        ("seed: 1\ntime_budget: 1:30\n", r"line 2: 1:30 is a number to the base 60.*90s, 90m or 1\.5h"),
        ("seed: 190:20:30\n", "line 1: 190:20:30 is a number to the base 60"),
        ("limits: {macs: [1, 2:30.5]}\n", "line 1: 2:30.5 is a number to the base 60"),
        ("seed: 010\n", "line 1: 010 is a number to the base 8 in YAML 1.1"),
        ("seed: 1_000\n", r"line 1: 1_000 is a number with underscores.* write 1000, or '1_000'"),
        ("train:\nseed: 3\n", r"line 1: the group 'train' is empty: leave it out, or indent its settings"),
        ("search:\n  filter:\n", r"line 2: the group 'search\.filter' is empty"),
        ("limits:\n", "line 1: the group 'limits' is empty"),
        ("train: {affine: yes}\n", r"line 1: yes is the truth value true in YAML 1\.1 and text elsewhere: write true"),
        ("data: {label: No}\n", r"line 1: No is the truth value false .*or 'No' in quotes"),
        ("space_args: {on: 3}\n", "line 1: on is the truth value true"),
        ("seed: true\n", "line 1: setting seed = true is a truth value, not a number"),
        ("train:\n  lr: false\n", "line 2: setting train.lr = false is a truth value, not a number"),
        ("limits: {macs: true}\n", "line 1: setting limits.macs = true is a truth value"),
        ("limits:\n  macs: [1, true]\n", r"line 2: setting limits\.macs = \[1, true\] is a truth value"),
        ("time_budget: true\n", "line 1: setting time_budget = true is a truth value"),
        ("train:\n  lr: .inf\n", r"line 2: setting train\.lr = inf: input should be a finite number"),
        ("seed: 3\ntrain:\n  epoch: 3\n", r"line 3: unknown setting 'train\.epoch'"),
        ("seed: x\n", "line 1: setting seed = 'x'"),
    ],
)
def test_what_is_ambiguous_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"run\.yaml, {message}"):
        load(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("time_budget=1:30", "the value of 'time_budget=1:30': 1:30 is a number to the base 60"),
        ("train.affine=yes", "the value of 'train.affine=yes': yes is the truth value true"),
        ("seed=true", "^setting seed = true is a truth value, not a number"),
        ("train={lr: 1, lr: 2}", "'lr' stands twice"),
        ("train=", "the group 'train' is empty"),
    ],
)
def test_overrides_likewise(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(None, [override])


def test_what_is_plain_is_taken(tmp_path: Path) -> None:
    text = (
        "name: '1:30'\ntrain: {affine: true, lr: 1e-2}\nspace_args: {no_skip: false, on_top: 'on'}\ntime_budget: 90m\n"
    )
    (tmp_path / "run.yaml").write_text(text)
    config = load(tmp_path / "run.yaml")
    assert (config.name, config.train.affine, config.train.lr, config.time_budget) == ("1:30", True, 0.01, 5400.0)
    assert config.space_args == {"no_skip": False, "on_top": "on"}
    (tmp_path / "again.yaml").write_text(dump(config))
    assert load(tmp_path / "again.yaml") == config
    (tmp_path / "names.yaml").write_text(dump(Config(name="010", space_args={"a": "yes", "b": "1_0", "c": "2:3"})))
    assert load(tmp_path / "names.yaml").space_args == {"a": "yes", "b": "1_0", "c": "2:3"}


def test_a_group_given_again_adds_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("train: {epochs: 7, shrink: {every: 2}}\nlimits: {macs: 5}\n")
    config = load(tmp_path / "run.yaml", ["train={lr: 0.5, shrink: {first: 3}}", "limits={parameters: 9}"])
    assert (config.train.epochs, config.train.lr, config.limits) == (7, 0.5, {"parameters": 9})
    assert (config.train.shrink.every, config.train.shrink.first) == (2, 3)
