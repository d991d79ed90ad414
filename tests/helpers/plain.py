"""Trainables that know nothing of RayNAS. Their processes load neither torch nor a test: they start in a moment."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import tune


class Counting(tune.Trainable):
    """Scores how many options are k3; one option always fails."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.architecture = new_config["architecture"]
        return True

    def step(self) -> dict[str, Any]:
        if self.architecture["blocks.0"] == "skip":
            raise RuntimeError("this one cannot be scored")
        options = list(self.architecture.values())
        return {"score": options.count("k3"), "skips": options.count("skip"), "note": "no number"}


class Summing(tune.Trainable):
    """Adds a part of the score at each step; Tune's checkpoints restore it."""

    def setup(self, config: dict[str, Any], base: float = 1.0) -> None:
        self.base = base
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.architecture, self.total = new_config["architecture"], 0.0
        return True

    def step(self) -> dict[str, Any]:
        self.total += self.base * sum(ord(option[-1]) for option in self.architecture.values())
        return {"score": self.total}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"total": self.total}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        self.total = float((checkpoint or {"total": 0.0})["total"])


class Told(tune.Trainable):
    """Leaves a file named by its process. One in five takes ten times as long; the first may end them all."""

    def setup(self, config: dict[str, Any], folder: str = "", others: int = 0) -> None:
        self.own, self.others = Path(folder, str(os.getpid())), others
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.own.write_text("at work")
        self.architecture = new_config["architecture"]
        return True

    def step(self) -> dict[str, Any]:
        total = sum(ord(option[-1]) for option in self.architecture.values())
        time.sleep(0.05 if total % 5 else 0.5)
        if self.others:
            self._kill_all()
        self.own.write_text("waits")
        return {"score": float(total)}

    def _kill_all(self) -> None:
        """Once, when all others wait: as where a machine is lost at the end of a generation."""
        with suppress(FileExistsError), self.own.parent.with_name("killer").open("x"):
            deadline = time.monotonic() + 60
            while len(waiting := self._waiting()) < self.others and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(1.5)  # their scores have come, too
            for path in (*waiting, self.own):
                path.write_text("killed")
                os.kill(int(path.name), signal.SIGKILL)

    def _waiting(self) -> list[Path]:
        return [path for path in self.own.parent.iterdir() if path.read_text() == "waits"]


class Broken(tune.Trainable):
    """Fails whatever it is given."""

    def step(self) -> dict[str, Any]:
        raise RuntimeError("nothing can be scored here")
