"""The page about a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raynas.report.page import write_report
from raynas.runs.context import RunContext
from raynas.runs.phases.pipeline import Phase

__all__ = ["Report"]


class Report(Phase):
    """Write report.html from the files of the run; returns its path."""

    name = "report"
    needs_network = False

    def run(self, run: RunContext, results: Mapping[str, Any]) -> Path:
        """Write the page."""
        return write_report(run.folder)
