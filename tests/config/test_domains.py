"""Tune's domains as data and back, and the levels of them."""

import random

import numpy as np
import pytest
import yaml
from ray import tune

from raynas.config.domains import DOMAINS, LEVELS, as_data, as_domain, values

EXAMPLES = {
    "choice": (0, 4, None, "cosine", True),
    "uniform": (0.1, 0.3),
    "quniform": (0, 1, 0.25),
    "loguniform": (1e-4, 1),
    "qloguniform": (1, 1024, 1),
    "randint": (3, 8),
    "qrandint": (2, 11, 3),
    "lograndint": (1, 1000),
    "qlograndint": (8, 512, 8),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_a_domain_of_tune_and_its_data_mean_the_same(name):
    arguments = EXAMPLES[name]
    domain = tune.choice(list(arguments)) if name == "choice" else getattr(tune, name)(*arguments)
    data = as_data(domain)
    assert data == {name: list(arguments)} and as_data(data) == data
    levels = values(domain)
    assert values(as_domain(data)) == levels and len(set(map(repr, levels))) == len(levels)
    # Every level can be drawn by Tune, and what Tune draws lies between the first and the last one.
    if name == "choice":
        assert levels == arguments
    else:
        np.random.seed(0)
        drawn = [domain.sample() for _ in range(300)]
        assert list(levels) == sorted(levels) and 1 < len(levels) <= LEVELS
        assert levels[0] <= min(drawn) and max(drawn) <= levels[-1]
        if name in ("quniform", "randint", "qrandint"):  # few enough to be levels all of them
            assert {round(value, 9) for value in drawn} == {round(value, 9) for value in levels}


def test_numbers_of_numpy_become_plain():
    for domain in (tune.uniform(np.float64(0.5), np.float32(1)), tune.choice(list(np.arange(1, 3) / 2))):
        assert yaml.safe_load(yaml.safe_dump(as_data(domain))) in ({"uniform": [0.5, 1.0]}, {"choice": [0.5, 1.0]})


def test_levels_are_evenly_spaced_on_the_scale_of_the_domain():
    levels = values(tune.loguniform(1e-3, 1))
    steps = np.diff(np.log(levels))
    assert (levels[0], levels[-1], len(levels)) == (1e-3, 1.0, LEVELS) and steps.std() < 0.05 * steps.mean()
    rng = random.Random(0)
    for _ in range(50):
        low = rng.uniform(-5, 5)
        levels = values(tune.uniform(low, low + 10 ** rng.uniform(-6, 3)))
        steps = np.diff(levels)
        assert len(levels) == LEVELS and steps.min() > 0.7 * steps.mean() and steps.max() < 1.3 * steps.mean()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"normal": [0, 1]}, r"is no domain; legal ones: choice, uniform.*qlograndint"),
        ([1, 2], "is no domain"),
        ({"uniform": [0, 1], "choice": [1]}, "is no domain"),
        ({"uniform": 3}, "uniform needs a list"),
        ({"choice": []}, "choice needs a list"),
        ({"uniform": [1, 0]}, "uniform needs a lower bound below the upper one"),
        ({"qrandint": [1, 8, 0]}, "steps above 0"),
        ({"loguniform": [0, 1]}, "loguniform cannot be made of.*lower bound greater than 0"),
        ({"uniform": [0, 1, 2, 3]}, "uniform cannot be made of"),
        ({"uniform": ["a", "b"]}, "uniform cannot be made of"),
    ],
)
def test_what_is_no_domain_is_refused_in_one_line(data, message):
    with pytest.raises(ValueError, match=message) as error:
        as_domain(data)
    assert "\n" not in str(error.value)


def test_a_domain_without_bounds_stays_what_it_is_and_is_refused():
    with pytest.raises(ValueError, match="is no domain"):
        as_domain(as_data(tune.randn(0, 1)))
