"""Packages whose names are imported when they are used; tests/test_imports.py checks the lists of each package."""

from __future__ import annotations

import importlib
import math

import pytest

from raynas.utils.lazy import lazy_names


def test_a_name_is_imported_from_its_home_under_its_own_or_another_name() -> None:
    load, names = lazy_names("mine", {"sqrt": "math", "root": "math:sqrt"})
    assert load("sqrt") is load("root") is math.sqrt and names() == ["root", "sqrt"]
    with pytest.raises(AttributeError, match="module 'mine' has no attribute 'cube'"):
        load("cube")


@pytest.mark.parametrize("name", ["raynas", "raynas.report", "raynas.results", "raynas.searchers", "raynas.testing"])
def test_a_package_lists_what_it_offers(name: str) -> None:
    package = importlib.import_module(name)
    assert {*dir(package)} == {*package.__all__}
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        _ = package.nothing
