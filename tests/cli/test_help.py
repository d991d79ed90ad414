"""Help, settings and version: what the command line prints without starting anything."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import raynas
from raynas.cli.arguments import COMMANDS
from raynas.cli.help import help_text
from raynas.cli.main import main
from raynas.config.reference import groups, select
from raynas.config.run import Config


def names(settings: Any, prefix: str = "") -> list[str]:
    found = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        nested = dataclasses.is_dataclass(value)
        found += names(value, f"{prefix}{field.name}.") if nested else [prefix + field.name]
    return found


def test_every_setting_is_there_with_a_meaning() -> None:
    shown = [setting for group in groups() for setting in group.settings]
    assert sorted(each.name for each in shown) == sorted(names(Config()))
    assert not [each.name for each in shown if not each.text or not each.kind]


def test_what_is_shown_is_what_the_classes_say() -> None:
    (group,) = select("after")
    assert group.settings[0].default == "[retrain, export, report]"
    assert group.settings[0].kind == "list of retrain, export, report"
    (group,) = select("train.checkpoint_seconds")
    assert float(group.settings[0].default) == Config().train.checkpoint_seconds
    assert [each.name for each in select("train")] == ["train", "train.shrink", "train.pool"]


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "settings"])
def test_each_command_has_help_of_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert COMMANDS[command].partition("`")[0].strip() in " ".join(text.split())
    assert ("train.epochs=" in text) == (command in ("search", "train-supernet", "retrain", "doctor"))


def test_help_names_all_commands_and_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == main(["--version"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)
    assert text.splitlines()[-1] == f"raynas {raynas.__version__}"


def test_settings_are_shown_by_group_by_name_and_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == main(["settings", "search.filter", "seed"]) == 0
    text = capsys.readouterr().out
    assert "search.filter.keep=0.5  (float > 0, < 1)" in text and "seed=0  (int)" in text
    assert main(["settings", "serch"]) == 2
    legal = ", ".join(group.name for group in groups() if group.name)
    assert capsys.readouterr().err == f"error: there is no setting and no group 'serch'; legal groups: {legal}\n"


def test_a_command_line_without_a_question_is_a_command() -> None:
    for arguments in ([], ["search", "train.epochs=2"], ["retrain", "--resume"], ["--name", "settings"]):
        assert help_text(arguments) is None
