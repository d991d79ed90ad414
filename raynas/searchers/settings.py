"""Settings of searchers: validated when they are made, with errors worded as those of the run's configuration."""

from __future__ import annotations

import functools
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

from raynas.config.errors import explain
from raynas.config.types import STRICT
from raynas.exceptions import ConfigError

__all__ = ["FinitePositive", "Natural", "Probability", "searcher_settings", "validated"]

T = TypeVar("T")
Natural = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
FinitePositive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass_transform(frozen_default=True)
def searcher_settings(cls: type[T]) -> type[T]:
    """Makes a frozen pydantic dataclass that raises :class:`raynas.exceptions.ConfigError` for illegal values."""
    made: Any = dataclass(frozen=True, config=STRICT)(cls)
    init = made.__init__

    @functools.wraps(init)
    def checked(self: Any, *arguments: Any, **values: Any) -> None:
        try:
            init(self, *arguments, **values)
        except ValidationError as error:
            raise ConfigError("\n".join(map(explain, error.errors()))) from None

    made.__init__ = checked
    result: type[T] = made
    return result


def validated(name: str, value: Any, kind: Any) -> Any:
    """Validates one argument of a searcher without a class of settings.

    Args:
        name: Of the argument, for the message.
        value: What was given.
        kind: A type that pydantic understands, e.g. one of :mod:`raynas.config.types`.

    Raises:
        ConfigError: The value is illegal.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ConfigError("\n".join(explain({**mistake, "loc": (name,)}) for mistake in error.errors())) from None
