"""Architectures as rows of small integers and as byte strings of one length: what a large table is searched by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from raynas import architecture as arch
from raynas.architecture import Decisions

__all__ = ["Codes"]

Integers = npt.NDArray[Any]


class Codes:
    """A code is one integer for each decision: the place of the chosen option, from 1; 0 where it is not active."""

    def __init__(self, decisions: Decisions) -> None:
        self.decisions = {name: tuple(options) for name, options in decisions.items()}
        self._places = {name: {option: n for n, option in enumerate(o, 1)} for name, o in self.decisions.items()}
        self._parents = {name: arch.parent(self.decisions, name) for name in self.decisions}
        self._flat = not any(self._parents.values())
        widest = max(map(len, self.decisions.values()))
        self.kind = np.dtype(np.uint8 if widest < 2**8 else np.uint32)
        """The type of the integers."""

    def row(self, architecture: Mapping[str, str]) -> list[int]:
        """The code of one architecture.

        Raises:
            ArchitectureError: The space does not contain it.
        """
        if self._flat and len(architecture) == len(self._places):
            try:
                return [places[architecture[name]] for name, places in self._places.items()]
            except (KeyError, TypeError):
                pass  # the check below says what is wrong
        form = arch.canonical(self.decisions, architecture)
        return [places[form[name]] if name in form else 0 for name, places in self._places.items()]

    def encode(self, architectures: Iterable[Mapping[str, str]]) -> Integers:
        """The codes of N architectures: [N, number of decisions].

        Raises:
            ArchitectureError: The space does not contain one of them.
        """
        rows = [self.row(architecture) for architecture in architectures]
        return np.array(rows, self.kind).reshape(len(rows), len(self.decisions))

    def decode(self, code: Iterable[int]) -> arch.Architecture:
        """The architecture of one code."""
        pairs = zip(self.decisions.items(), code, strict=True)
        return {name: options[place - 1] for (name, options), place in pairs if place}

    def active(self, codes: Integers) -> npt.NDArray[np.bool_]:
        """Which decisions the options above them make part of an architecture: [N, number of decisions]."""
        column = {name: number for number, name in enumerate(self.decisions)}
        active = np.ones(codes.shape, bool)
        # From the outside to the inside: a decision is active only where the one above it is.
        for name in sorted(self.decisions, key=lambda n: n.count(".")):
            above = self._parents[name]
            if above is not None:
                outer, option = column[above[0]], self._places[above[0]][above[1]]
                active[:, column[name]] = active[:, outer] & (codes[:, outer] == option)
        return active

    def pack(self, codes: Integers) -> npt.NDArray[np.bytes_]:
        """One byte string for each code, equal where the codes are; they sort: [N]."""
        width = codes.shape[1] * self.kind.itemsize
        return np.ascontiguousarray(codes, self.kind).view(f"S{width}").ravel()
