"""A run that suffers every fault of a cluster, one after the other, ends as one that suffers none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.faults import FAULTS, QUICK, BadDay, Fault, compare, undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without any fault."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def day(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BadDay]:
    """A run on a cluster; the tests do their faults to it in their order."""
    day = BadDay(tmp_path_factory.mktemp("faults"), QUICK)
    yield day
    day.close()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_run_goes_on_after(fault: Fault, day: BadDay) -> None:
    day.suffer(fault)


def test_it_ends_as_the_undisturbed_one(day: BadDay, reference: Path) -> None:
    day.finish()
    day.check([])
    compare(day.run, reference)
