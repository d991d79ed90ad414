"""In a source tree, ``raynas.spaces`` is the folder spaces/ of the repository; an installation has it here."""

from pathlib import Path

__all__: list[str] = []
__path__ = [str(Path(__file__).resolve().parents[2] / "spaces")]
