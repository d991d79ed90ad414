"""Settings files that come with RayNAS: ``--config rlnas``, and what is given besides goes before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS"]


def _rlnas(population: int, parents: int, paths: str = "plain", **evolution: Any) -> dict[str, Any]:
    """RLNAS (Zhang et al., CVPR 2021) with its evolution: 20 generations, half of each mutants, half crossings."""
    return {
        "train": {"labels": "random", "paths": paths},
        "search": {
            "trainable": "trainables.angle:Angle",
            "cohort": 64,  # an angle takes microseconds
            "method": "evolution",
            "method_args": {"population": population, "parents": parents, "waits": True, **evolution},
            "num_samples": 20 * population,
        },
    }


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "rlnas": _rlnas(population=50, parents=10),
    "rlnas_nasbench201": _rlnas(population=100, parents=30, paths="cells", avoided=["none"]),
}
"""By name, as nested dictionaries; rlnas is what the paper takes for DARTS and for MobileNet-like spaces."""
