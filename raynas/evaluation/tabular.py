"""A table of scored architectures: a Parquet or Arrow (Feather) file, checked as a whole before anyone relies on it.

    table = ScoreTable.open(decisions, Layout(file="scores.parquet", metric="accuracy"))
    row = table.find([architecture])[0]            # -1: it is not in the table
    table.scores[row, -1]

The file is memory-mapped and only the columns that are needed are read. What a table keeps of them are plain arrays,
which Ray hands to other processes without a copy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from raynas.architecture import Decisions, size
from raynas.evaluation.tabular_columns import Array, Columns
from raynas.exceptions import ConfigError, TableError
from raynas.search_space.constraints import COSTS
from raynas.search_space.encoding import Codes, Integers
from raynas.utils.imports import resolve

__all__ = ["Layout", "ScoreTable", "TableError"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Layout:
    """Where the table is and what its columns mean.

    Without ``encoded`` there must be a column for each decision, of that name, that holds the chosen option; empty
    where a nested decision is not active.
    """

    file: str
    """Parquet or Arrow (Feather)."""
    metric: str
    """Column of the score; the last fidelity, where there are several."""
    mode: Literal["max", "min"] = "max"
    """Whether a high score is good or a low one."""
    encoded: str | None = None
    """Column that holds the whole architecture as text..."""
    decoder: str | None = None
    """...and the function that makes an architecture of it: spaces.nasbench201:from_string."""
    fidelities: list[str] = Field(default_factory=list)
    """Columns of the score at the fidelities below the last, lowest first."""
    cost: str | list[str] | None = None
    """Simulated seconds: a column for each fidelity with the time spent until then; or one, of which every fidelity
    takes an equal share. They take the place of the clock in the log."""
    columns: list[str] | dict[str, str] = Field(default_factory=list)
    """Further columns for the log, e.g. [params_m]; or by the names they get there: {macs: flops}."""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Layout:
        """Read ``search.trainable_args``.

        Raises:
            ConfigError: A setting is missing, unknown or of the wrong type.
        """
        legal = ", ".join(f.name for f in dataclasses.fields(cls))
        try:
            layout = TypeAdapter(cls).validate_python(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            name = f"search.trainable_args.{first['loc'][0]}"
            if first["type"] in ("missing", "missing_argument"):
                raise ConfigError(f"{name} is missing; there are: {legal}") from None
            if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
                raise ConfigError(f"unknown setting {name!r}; legal ones: {legal}") from None
            raise ConfigError(f"setting {name} = {first['input']!r}: {first['msg']}") from None
        if (layout.encoded is None) != (layout.decoder is None):
            raise ConfigError("search.trainable_args.encoded and .decoder go together: a column and what reads it")
        if layout.metric in layout.fidelities[:-1]:
            raise ConfigError(f"search.trainable_args.fidelities: {layout.metric!r} is the metric, so it comes last")
        if len(layout.costs) not in (0, 1, len(layout.steps)):
            raise ConfigError(
                f"search.trainable_args.cost names {len(layout.costs)} columns for {len(layout.steps)} fidelities: "
                "name one, or one for each"
            )
        return layout

    @property
    def steps(self) -> list[str]:
        """The columns of the score, lowest fidelity first."""
        return [*(name for name in self.fidelities if name != self.metric), self.metric]

    @property
    def costs(self) -> list[str]:
        """The columns of the cost: none, one, or one for each fidelity."""
        return [self.cost] if isinstance(self.cost, str) else list(self.cost or ())

    @property
    def further(self) -> dict[str, str]:
        """The further columns by the names that they have in the log."""
        return dict(self.columns) if isinstance(self.columns, dict) else {name: name for name in self.columns}


class ScoreTable:
    """The scores of architectures by row. Made by :meth:`open`.

    Attributes:
        scores: [rows, fidelities].
        seconds: Simulated ones, spent until each fidelity: [rows, fidelities]; None where the table has no such cost.
        columns: Further columns by the names that they have in the log: [rows] each.
    """

    def __init__(self, source: Columns, decisions: Decisions, layout: Layout) -> None:
        self.name = Path(layout.file).name
        self.scores = np.stack([source.numbers(name) for name in layout.steps], axis=1)
        self.seconds = _seconds(source, layout)
        self.columns = {name: source.numbers(column) for name, column in layout.further.items()}
        for name in set(COSTS) & set(self.columns):
            for row in np.flatnonzero(self.columns[name] % 1.0)[:1].tolist():
                value = self.columns[name][row]
                raise source.error(layout.further[name], row, f"{value:g} is no whole number, as {name} are")
        self._codes = Codes(decisions)
        codes = _codes(source, self._codes, layout)
        packed = self._codes.pack(codes)
        self._order = np.argsort(packed, kind="stable")
        self._packed = packed[self._order]
        again = np.flatnonzero(self._packed[1:] == self._packed[:-1])
        if len(again):
            second, first = min((int(self._order[n + 1]), int(self._order[n])) for n in again)
            which = self._codes.decode(codes[second].tolist())
            where = layout.encoded or next(iter(decisions))
            raise source.error(where, second, f"the same architecture as in row {first}: {which}")

    @classmethod
    def open(
        cls, decisions: Decisions, layout: Layout, limited: Iterable[str] = (), objectives: Iterable[str] = ()
    ) -> ScoreTable:
        """Read a table and check all of it.

        Args:
            decisions: The space. Each of its architectures may be in the table, at most once.
            layout: The file and what its columns mean.
            limited: Names of costs that are limited: numeric columns, or names that ``layout.columns`` gives.
            objectives: Names of costs that are minimised.

        Raises:
            TableError: There is no such file or column, a column has the wrong type, a number is missing or not finite,
                a row is no architecture of the space or repeats another one.
        """
        source = Columns(layout.file)
        further = dict(layout.further)
        for use, name in [*(("limit", name) for name in limited), *(("objective", name) for name in objectives)]:
            # A front of the score against itself would hold everything.
            barred = layout.steps if use == "objective" else ()
            if further.get(name, name) in barred or (name not in further and name not in source.numeric):
                every = dict.fromkeys((*further, *source.numeric))
                legal = [known for known in every if further.get(known, known) not in barred]
                raise TableError(f"unknown {use} {name!r}; legal ones: {', '.join(legal)}")
            further.setdefault(name, name)
        options = list(decisions) if layout.encoded is None else [layout.encoded]
        absent = [name for name in options if name not in source.names]
        if absent and layout.encoded is None:
            raise TableError(
                f"table {layout.file} has no column for the decision {absent[0]!r}; it has: {source.listed}. If one of "
                "them holds whole architectures, name it by encoded, and the function that reads it by decoder"
            )
        source.load([*layout.steps, *layout.costs, *further.values()], options)
        return cls(source, decisions, dataclasses.replace(layout, columns=further))

    def find(self, architectures: Sequence[Mapping[str, str]]) -> npt.NDArray[np.int64]:
        """The rows of N architectures; -1 where the table has none: [N].

        Raises:
            ArchitectureError: The space does not contain one of them.
        """
        codes = self._codes.pack(self._codes.encode(architectures))
        places = np.minimum(np.searchsorted(self._packed, codes), len(self._packed) - 1)
        return np.where(self._packed[places] == codes, self._order[places], -1)

    def further(self, row: int) -> dict[str, float]:
        """The further columns of one row by name."""
        return {name: int(c[row]) if name in COSTS else float(c[row]) for name, c in self.columns.items()}

    def __len__(self) -> int:
        return len(self._order)

    @property
    def missing(self) -> int:
        """How many architectures of the space are not in the table."""
        return size(self._codes.decisions) - len(self)

    def __str__(self) -> str:
        size = f"{self.name} has {len(self):,} architectures"
        if not self.missing:
            return f"{size}, all of the space"
        missing = f"{self.missing:,}" if self.missing < 10**9 else f"{self.missing:.3g}"
        return f"{size}; {missing} others of the space are missing and count as infeasible"


def _seconds(source: Columns, layout: Layout) -> Array | None:
    """The simulated seconds spent until each fidelity: [rows, fidelities]."""
    if layout.cost is None:
        return None
    names = layout.costs
    spent = np.stack([source.numbers(name) for name in names], axis=1)
    before = np.concatenate([np.zeros((len(spent), 1)), spent[:, :-1]], axis=1)
    for row, place in np.argwhere(spent < before)[:1].tolist():
        less = f", less than {before[row, place]:g} s in column {names[place - 1]!r}" if place else ""
        raise source.error(names[place], row, f"{spent[row, place]:g} s{less}")
    steps = len(layout.steps)
    return spent if len(names) == steps else spent * np.arange(1, steps + 1) / steps


def _codes(source: Columns, codes: Codes, layout: Layout) -> Integers:
    """The architecture of each row: [rows, number of decisions]."""
    if layout.encoded is not None and layout.decoder is not None:
        return _decoded(source, codes, layout.encoded, layout.decoder)
    columns = []
    for name, options in codes.decisions.items():
        places = pc.index_in(source.texts(name), value_set=pa.array(options, pa.large_string()))
        columns.append(places.to_numpy())  # NaN where it is no option
    found = np.nan_to_num(np.stack(columns, axis=1) + 1.0, nan=0.0).astype(codes.kind)
    active = codes.active(found)
    for row, place in np.argwhere(active & (found == 0))[:1].tolist():
        name, options = list(codes.decisions.items())[place]
        value = source.texts(name)[row].as_py()
        what = "empty" if value is None else f"{value!r} is no option"
        raise source.error(name, row, f"{what}; legal ones: {', '.join(options)}")
    return np.where(active, found, 0).astype(codes.kind)


def _decoded(source: Columns, codes: Codes, column: str, decoder: str) -> Integers:
    """The same from a column of text and the function that reads it."""
    decode = resolve(decoder, "search.trainable_args.decoder")
    rows = []
    for number, text in enumerate(source.texts(column).to_pylist()):
        try:
            rows.append(codes.row(decode(text)))
        except Exception as error:  # whatever the function of a user raises, the row is to blame
            what = "empty" if text is None else " ".join(str(error).split()) or type(error).__name__
            raise source.error(column, number, what) from None
    return np.array(rows, codes.kind)
