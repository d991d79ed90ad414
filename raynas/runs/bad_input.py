"""A plain ``ValueError`` of a validator, raised for what a person gave, becomes a ``ConfigError``.

The command line takes every other ``ValueError`` for a bug.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from raynas.exceptions import ConfigError

__all__ = ["validating"]


@contextmanager
def validating(what: str = "") -> Iterator[None]:
    """To be put around the call of a validator, and of nothing else.

    Args:
        what: The setting or object that is validated, put before the message.

    Raises:
        ConfigError: The validator raised a plain ``ValueError``; its subclasses pass unchanged.
    """
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise ConfigError(f"{what}: {error}" if what else str(error)) from error
