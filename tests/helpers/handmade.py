"""Runs made by hand, whose every number is known, and their pages, taken apart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path

from raynas import architecture
from raynas.config.loading import dump
from raynas.config.run import Config, DataConfig
from raynas.report.page import write_report
from raynas.results.log import Log

START = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
VOID = {"meta", "link", "br", "img", "input", "hr"}
CONFIG = Config(
    space="spaces.shufflenet:spos_small", data=DataConfig(name="digits"), limits={"macs": [1e6, 4e6]}, name="my-run"
)


class Page(HTMLParser):
    """The texts of the sections, the attributes, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        assert len(values) == len(attrs), f"<{tag}> has an attribute twice"
        self.attributes += [(tag, name, value) for name, value in values.items()]
        if tag not in VOID:
            self.open.append((tag, values.get("id", "header" if tag == "header" else "")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1][0] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for _, name in self.open:
            if name:
                self.texts.setdefault(name, []).append(data)

    def text(self, section: str) -> str:
        """All words of a section, separated by single spaces."""
        return " ".join(" ".join(self.texts.get(section, [])).split())


def page(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


# A run, made by hand


def chosen(number: int) -> dict[str, str]:
    return {f"blocks.{place}": ("k3", "k5", "skip")[number // 3**place % 3] for place in range(3)}


def reports(number: int, last: int, score: float, status: str, **columns: object) -> Iterator[dict[str, object]]:
    """Rows of one architecture: a second of computing for each of its fidelity steps, of four."""
    for fidelity in range(1, last + 1):
        yield {
            "architecture": chosen(number),
            "fidelity": fidelity,
            "max_fidelity": 4,
            "score": score,
            "status": status if fidelity == last else "running",
            "metrics": {"accuracy": score},
            "macs": 2_000_000 + 100_000 * number,
            "parameters": 50_000 + number,
            "seconds": float(fidelity),
            "worker": "supernet-0",
            "time": START + timedelta(seconds=4 * number + fidelity),
            **columns,
        }


def settle(folder: Path, config: Config = CONFIG) -> Path:
    """A folder with settings alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump(config), encoding="utf-8")
    return folder


def fill(folder: Path) -> Path:
    """A run whose search ended in an untidy way: two full scores, two stopped, one too large, one failed, one lost."""
    settle(folder)
    with Log(folder / "scored.parquet", math.inf) as log:
        for number, last, score, status, columns in (
            (0, 4, 71.25, "complete", {}),
            (1, 1, 40.5, "stopped", {}),
            (2, 2, 60.5, "stopped", {}),
            (3, 4, 83.75, "complete", {}),
            (4, 4, 99.0, "complete", {"macs": 7_000_000}),
            (5, 1, 50.0, "error", {"error": "RuntimeError: out of <memory>"}),
            (6, 2, 55.0, "running", {}),
        ):
            for row in reports(number, last, score, status, **columns):
                log.append(row)
    (folder / "supernet").mkdir()
    lines = [{"step": s, "total": 30, "loss": 3.0 - s / 20, "time": 1e9 + s} for s in (10, 20, 30)]
    (folder / "supernet" / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def finish(folder: Path, order: tuple[int, ...] = (3, 0), finals: tuple[float, ...] = (82.125, 70.0)) -> Path:
    """The leaderboard at the end of the search."""
    board = [
        {"key": architecture.key(chosen(n)), "architecture": chosen(n), "score": {0: 71.25, 3: 83.75}[n], "fidelity": 4,
         "macs": 2_000_000 + 100_000 * n, "parameters": 50_000 + n, "final_score": final}
        for n, final in zip(order, finals, strict=True)
    ]  # fmt: skip
    (folder / "leaderboard.json").write_text(json.dumps(board))
    return folder


def retrain(folder: Path) -> Path:
    """The winner, trained from scratch."""
    place = folder / "retrain" / architecture.key(chosen(3))
    place.mkdir(parents=True)
    result = {"test_accuracy": 90.375, "validation_accuracy": 91.5, "epochs": 30, "seconds": 60.0}
    (place / "result.json").write_text(json.dumps(result))
    return folder
