"""Trainables that know nothing of RayNAS. Their processes load neither torch nor a test: they start in a moment."""

from __future__ import annotations

import os
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
    """Leaves a file named by its process. One in five takes ten times as long as the others."""

    def setup(self, config: dict[str, Any], folder: str = "") -> None:
        Path(folder, str(os.getpid())).touch()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.architecture = new_config["architecture"]
        return True

    def step(self) -> dict[str, Any]:
        places = [ord(option[-1]) for option in self.architecture.values()]
        time.sleep(0.5 if sum(places) % 5 == 0 else 0.05)
        return {"score": float(sum(places))}


class Broken(tune.Trainable):
    """Fails whatever it is given."""

    def step(self) -> dict[str, Any]:
        raise RuntimeError("nothing can be scored here")
