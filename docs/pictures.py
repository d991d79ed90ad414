"""Makes the pictures of the documentation from a real run: ``PYTHONPATH=.:examples python docs/pictures.py``.

It searches the table of ``examples/table_search.py``, takes a screenshot of the report (with chromium), and records the
live view in the middle of the search.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from table_search import write_table

from raynas import Config, prepare
from raynas.progress import SearchStatus
from raynas.runs.display import View

STATIC = Path(__file__).resolve().parent / "_static"


class Recorded(View):
    """A view that keeps what it is told of a search."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.statuses: list[SearchStatus] = []

    @contextmanager
    def search(self) -> Iterator[Callable[[SearchStatus], None]]:
        """Shows the middle of the search when it has ended."""
        yield self.statuses.append
        self.console.print(self._search_table(self.statuses[len(self.statuses) // 2]))


def main() -> None:
    """Search, record, take the screenshot."""
    STATIC.mkdir(exist_ok=True)
    console = Console(record=True, width=100, highlight=False)
    with TemporaryDirectory() as folder:
        write_table(Path(folder, "scores.parquet"))
        config = Config(
            space="table_search:DECISIONS",
            search={
                "trainable": "trainables.table:Table",
                "trainable_args": {"file": f"{folder}/scores.parquet", "metric": "accuracy", "columns": ["cost"]},
                "method": "regularized",
                "num_samples": 300,
                "cohort": 4,
            },
            limits={"cost": 12},
            name="table",
            storage_path=folder,
        )
        run = prepare(config, view=Recorded(console))
        try:
            run.search()
            report = run.report()
        finally:
            run.close()
        console.save_svg(str(STATIC / "live_view.svg"), title="python -m raynas.launch")
        line = [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--window-size=1100,1300",
        ]
        subprocess.run([*line, f"--screenshot={STATIC / 'report.png'}", report.as_uri()], check=True)


if __name__ == "__main__":
    main()
