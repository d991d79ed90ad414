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


_IMAGENET = {"name": "images", "size": 224, "validation": 0.04}
"""50,000 of 1.28 million training images are held out; where they are streamed, as many as take 1 GB."""
_SPOS_RETRAINING = {"preset": "spos", "epochs": 240}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "rlnas": _rlnas(population=50, parents=10),
    "rlnas_nasbench201": _rlnas(population=100, parents=30, paths="cells", avoided=["none"]),
    "imagenet_spos": {
        "space": "spaces.shufflenet:spos",
        "data": _IMAGENET,
        "train": {"preset": "spos"},
        "search": {
            "method": "evolution",
            "method_args": {"population": 50, "parents": 10, "waits": True},
            "num_samples": 1000,
            "bn_images": 20_000,
            "scheduler": "none",
        },
        "retrain": _SPOS_RETRAINING,
        "limits": {"macs": 330e6},
    },
    "imagenet_rlnas": {
        **_rlnas(population=50, parents=10),
        "space": "spaces.proxyless:proxyless",
        "data": _IMAGENET,
        "train": {"labels": "random", "paths": "plain", "preset": "spos", "batch_size": 512, "lr": 0.25},
        "retrain": {**_SPOS_RETRAINING, "batch_size": 1024, "lr": 0.5},
        "limits": {"macs": 475e6},
    },
}
"""By name, as nested dictionaries; rlnas is what the paper takes for DARTS and for MobileNet-like spaces.

imagenet_spos, imagenet_rlnas: the papers' numbers for a folder in the layout of ImageNet, ``data.folder``. Two things
differ from the papers: images are normalised, and RLNAS' clipping of each gradient value at 5 is left out.
"""
