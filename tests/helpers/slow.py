"""A table of scores that takes its time."""

from __future__ import annotations

import time
from collections.abc import Sequence

from raynas.trainables.table import Table

from raynas.tune.trial import Candidate


class SlowTable(Table):
    """Looks up as a Table does, in a twentieth of a second."""

    def advance(self, members: Sequence[Candidate], fidelity: int) -> None:
        """Look up the next scores."""
        time.sleep(0.05)
        super().advance(members, fidelity)
