"""The line of a user's own code that an error went through."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers import tiny

from raynas import Config, prepare
from raynas.data.loading import load
from raynas.exceptions import ConfigError, DataError
from raynas.utils.user_code import last_user_line


def broken(num_classes: int) -> None:
    json.loads("{")


def data() -> None:
    tiny.split("many", 0)  # type: ignore[arg-type]


def test_installed_code_is_passed_over() -> None:
    try:
        broken(1)
    except ValueError as error:
        assert re.fullmatch(r' \(.*test_user_code.py, line \d+: json.loads\("{"\)\)', last_user_line(error))
    assert last_user_line(ValueError("never raised")) == ""


def test_builders_and_loaders_name_it(tmp_path: Path, no_ray: None) -> None:
    config = Config(space="tests.utils.test_user_code:broken", storage_path=str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"cannot be built: JSONDecodeError: .*test_user_code.py, line \d+: json.loads"
    ):
        prepare(config, data=tiny.data())
    with pytest.raises(DataError, match=r"failed: TypeError: .*tiny.py, line \d+: "):
        load("tests.utils.test_user_code:data")
