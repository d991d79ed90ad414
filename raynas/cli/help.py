"""What the command line prints without starting anything: the help of a command, the settings, the version."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence

import raynas
from raynas.cli.arguments import COMMANDS, parser
from raynas.config.reference import Group, groups, select

__all__ = ["help_text"]

_GROUPS: dict[str, tuple[str, ...]] = {
    "search": ("", "data", "limits", "search", "train", "retrain", "latency"),
    "train-supernet": ("", "data", "train"),
    "retrain": ("data", "retrain", "train"),
    "export": (),
    "rank": ("data", "truth", "search"),
    "report": (),
    "watch": (),
    "doctor": ("", "data", "search", "train", "latency"),
}
"""The groups of settings that matter to each command."""


def help_text(arguments: Sequence[str]) -> str | None:
    """What is to be printed instead of running a command; None where a command is to be run.

    Args:
        arguments: Of the command line.

    Raises:
        ConfigError: ``settings`` of a name that there is not.
    """
    command = arguments[0] if arguments else ""
    wanted = any(each in ("-h", "--help") for each in arguments)
    if command == "settings":
        if wanted or len(arguments) == 1:
            return _all_settings()
        return "\n".join(line for name in arguments[1:] for line in _lines(select(name)))
    if "--version" in arguments:
        return f"raynas {raynas.__version__}"
    if not wanted:
        return None
    if command not in COMMANDS:
        return parser().format_help()
    shown = [group for group in groups() if group.name.partition(".")[0] in _GROUPS[command]]
    flags = parser()
    flags.usage, flags.description, flags.epilog = f"raynas {command} [flags] [key=value ...]", COMMANDS[command], None
    text = [flags.format_help()]
    if shown:
        text += ["settings, as key=value (raynas settings NAME says more):", *_lines(shown, short=True)]
    return "\n".join(text).rstrip()


def _all_settings() -> str:
    return "\n".join(_lines(groups(), short=True))


def _lines(shown: Iterable[Group], short: bool = False) -> Iterator[str]:
    """The settings of groups; in short the first sentence of each alone."""
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    for group in shown:
        yield ""
        if group.name:
            yield f"{group.name}: {_sentence(group.text) if short else group.text}"
        for each in group.settings:
            yield f"  {each.name}={each.default}  ({each.kind})"
            text = _sentence(each.text) if short else " ".join(each.text.split())
            yield from textwrap.wrap(text, width, initial_indent=6 * " ", subsequent_indent=6 * " ")


def _sentence(text: str) -> str:
    """The first sentence of a text, in one line."""
    return " ".join(text.split()).partition(". ")[0].rstrip(".")
