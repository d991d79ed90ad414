"""Reading the JSON files of a run: of the expected shape, or one line that names file, place and what to do."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from raynas.exceptions import ConfigError

__all__ = [
    "CurveLine",
    "DamagedError",
    "Front",
    "Graphs",
    "Journal",
    "Leaderboard",
    "Ranking",
    "Result",
    "TrainingRounds",
    "Winners",
    "accept",
    "read_json",
    "read_lines",
    "read_or",
    "sealed",
]

log = logging.getLogger(__name__)
T = TypeVar("T")
_Architecture = dict[str, str]


class DamagedError(ConfigError):
    """A file of a run that is cut short, damaged or of another kind; the message names it."""


class BoardRow(TypedDict):
    """An architecture of leaderboard.json or pareto.json; its other costs are beside these."""

    key: str
    architecture: _Architecture
    score: FiniteFloat
    fidelity: NotRequired[int]
    final_score: NotRequired[float]
    macs: NotRequired[FiniteFloat | None]
    parameters: NotRequired[FiniteFloat | None]
    latency_ms: NotRequired[FiniteFloat | None]


class _Winner(TypedDict):
    architecture: _Architecture


class _Estimate(TypedDict):
    value: float
    low: float
    high: float


class _Figures(TypedDict):
    name: str
    tau: _Estimate
    spearman: _Estimate
    favourite: FiniteFloat
    overlap: FiniteFloat


class _Rung(_Figures):
    fidelity: int
    of: int
    architectures: int


class _Searched(TypedDict):
    architectures: int
    tau: _Estimate


class _Placed(TypedDict):
    key: str
    place: tuple[int, int] | None


class Ranking(TypedDict):
    """The content of ranking.json."""

    sentence: str
    sample: str
    truth: str
    architectures: int
    top: int
    score: _Figures
    baselines: list[_Figures]
    others: list[_Figures]
    fidelities: list[_Rung]
    favourite: _Placed | None
    winner: _Placed | None
    searched: _Searched | None
    points: list[tuple[FiniteFloat, FiniteFloat]]


class _Wiring(TypedDict):
    edges: list[tuple[int, int]]
    architectures: dict[str, list[tuple[int, int, str | None]]]


class _Generated(TypedDict):
    key: str
    predicted: FiniteFloat
    score: FiniteFloat | None


class _Learned(TypedDict):
    scores: int
    steps: int
    seconds: float
    bound: bool
    reconstructed: float | None
    held_out: int
    pairwise: float | None
    mode: Literal["max", "min"]
    pool: FiniteFloat
    generated: list[_Generated]


class _Earlier(TypedDict):
    """A round as earlier versions kept it; it is passed over."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    mode: NotRequired[None]
    generated: NotRequired[None]


class _Round(TypedDict):
    new: list[_Architecture]
    learned: NotRequired[_Learned | _Earlier | None]


class _Pool(TypedDict):
    rounds: list[_Round]
    members: list[_Architecture]


class _Shrinking(TypedDict):
    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]
    rounds: list[dict[str, Any]]
    decisions: dict[str, list[str]]
    anchored: bool


class Result(TypedDict):
    """The content of result.json: test_accuracy and validation_accuracy, or what else measures the task."""

    epochs: NotRequired[FiniteFloat]
    seconds: NotRequired[FiniteFloat]
    test_accuracy: NotRequired[float]
    validation_accuracy: NotRequired[float]
    test_perplexity: NotRequired[float]
    validation_perplexity: NotRequired[float]


class CurveLine(TypedDict):
    """A line of training.jsonl."""

    time: NotRequired[FiniteFloat]
    images_per_second: NotRequired[FiniteFloat]
    gpus: NotRequired[FiniteFloat]
    waiting: NotRequired[FiniteFloat]


Leaderboard = Annotated[list[BoardRow], Field(min_length=1)]
Winners = Annotated[list[_Winner], Field(min_length=1)]
Front = list[BoardRow]
Graphs = _Wiring | Annotated[dict[str, Any], Field(max_length=0)]
Journal = Annotated[list[_Learned | _Earlier], Field(min_length=1)]
TrainingRounds = _Pool | _Shrinking
"""The content of supernet/rounds.json."""


def read_json(path: Path, shape: Any, cure: str) -> Any:
    """Read a JSON file.

    Args:
        path: It is there.
        shape: A type that pydantic can check.
        cure: What to do where the file cannot be used, for the message.

    Returns:
        What the file holds, as it is.

    Raises:
        DamagedError: It is no JSON, or of another shape.
    """
    try:
        found = accept(path.read_bytes(), shape)
        if isinstance(found, dict) and found.get("digest", _digest(found)) != _digest(found):
            raise ValueError("is damaged: it does not fit its digest")
        return found
    except ValueError as error:
        raise DamagedError(f"{path} {error}; {cure}") from None


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a file with a digest of it, which :func:`read_json` checks: for what scores depend on."""
    return {**content, "digest": _digest(content)}


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps({name: value for name, value in content.items() if name != "digest"}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def read_or(path: Path, shape: Any, otherwise: T, instead: str) -> Any | T:
    """As :func:`read_json`; where there is no such file ``otherwise``, and so where it is damaged, with a warning.

    Args:
        path: Need not be there.
        shape: A type that pydantic can check.
        otherwise: What is used then.
        instead: What becomes of it, for the warning.
    """
    if not path.is_file():
        return otherwise
    try:
        return read_json(path, shape, instead)
    except DamagedError as error:
        log.warning("%s", error)
        return otherwise


def read_lines(path: Path, shape: Any, report: Callable[[str], None] | None = None) -> list[Any]:
    """The lines of a file of JSON lines that can be used.

    The last line may be torn by a crash, and is passed over; others that cannot be used are named.

    Args:
        path: Need not be there.
        shape: Of a line.
        report: Given one text about the lines that are left out; default: a warning.
    """
    if not path.is_file():
        return []
    found, wrong = [], []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                found.append(accept(line, shape))
        except ValueError as error:
            if number < len(lines):
                wrong.append(f"line {number} {error}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        text = f"{path}: {', '.join(wrong[:3])}{more}: left out"
        (report or (lambda line: log.warning("%s", line)))(text)
    return found


def accept(text: bytes, shape: Any) -> Any:
    """What a JSON text holds, if it is of the shape.

    Raises:
        ValueError: It is not; in one line.
    """
    try:
        _adapter(shape).validate_json(text, strict=True)
        return json.loads(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("function-", "_")))
        if first["type"] == "json_invalid":
            raise ValueError(f"is not JSON ({first['msg'].removeprefix('Invalid JSON: ')})") from None
        raise ValueError(f"is damaged: {where}{': ' if where else ''}{first['msg']}") from None
    except RecursionError:
        raise ValueError("is nested too deep") from None


@functools.cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)
