"""Trainables that know nothing of RayNAS. Their processes load neither torch nor a test: they start in a moment."""

from __future__ import annotations

import os
import signal
import time
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
        return {"score": sum(option == "k3" for option in self.architecture.values())}


class Told(tune.Trainable):
    """Leaves a file named by its process. One in five takes ten times as long, and may kill a process that waits."""

    def setup(self, config: dict[str, Any], folder: str = "", kills: int = 0) -> None:
        self.own, self.kills = Path(folder, str(os.getpid())), kills
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.own.write_text("at work")
        self.architecture = new_config["architecture"]
        return True

    def step(self) -> dict[str, Any]:
        total = sum(ord(option[-1]) for option in self.architecture.values())
        if total % 5:
            time.sleep(0.05)
        else:
            time.sleep(0.5)
            self._kill()
        self.own.write_text("waits")
        return {"score": float(total)}

    def _kill(self) -> None:
        said = {path: path.read_text() for path in self.own.parent.iterdir()}
        waiting = [path for path, text in said.items() if text == "waits"]
        if waiting and list(said.values()).count("killed") < self.kills:
            waiting[0].write_text("killed")
            os.kill(int(waiting[0].name), signal.SIGKILL)


class Broken(tune.Trainable):
    """Fails whatever it is given."""

    def step(self) -> dict[str, Any]:
        raise RuntimeError("nothing can be scored here")
