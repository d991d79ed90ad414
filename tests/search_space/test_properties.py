"""Properties of architectures, encodings and sequences, on generated spaces."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raynas import architecture as arch
from raynas.architecture import Architecture, key
from raynas.exceptions import ArchitectureError
from raynas.search_space.encoding import Codes
from raynas.search_space.sequence import SequenceEncoder
from raynas.search_space.space import SearchSpace

OPTIONS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=4, unique=True).map(tuple)
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """Decisions of which some are nested under an option of another one, up to three levels deep."""
    decisions = {f"x{i}": draw(OPTIONS) for i in range(draw(st.integers(1, 4)))}
    for number in range(draw(st.integers(0, 4))):
        above = draw(st.sampled_from(sorted(decisions)))
        if above.count(".") < 4:
            decisions[f"{above}.{draw(st.sampled_from(decisions[above]))}.y{number}"] = draw(OPTIONS)
    return decisions


pairs = st.tuples(spaces(), st.integers(0, 10**6))


def is_legal(decisions: dict[str, tuple[str, ...]], form: Architecture) -> bool:
    """By the definition: exactly the decisions whose enclosing options are chosen, each with one of its options."""

    def active(name: str) -> bool:
        above = arch.parent(decisions, name)
        return above is None or (active(above[0]) and form.get(above[0]) == above[1])

    return set(form) == {name for name in decisions if active(name)} and all(
        form[name] in decisions[name] for name in form
    )


@few
@given(pairs)
def test_sampled_architectures_are_legal_and_canonical_is_idempotent(pair: tuple[dict, int]) -> None:
    decisions, seed = pair
    form = arch.sample(decisions, Random(seed))
    assert is_legal(decisions, form)
    extra = {name: options[-1] for name, options in decisions.items() if name not in form}
    assert arch.canonical(decisions, form) == arch.canonical(decisions, {**extra, **form}) == form
    assert key(form) == key(dict(reversed(form.items())))


@few
@given(pairs)
def test_mutation_and_crossover_stay_legal(pair: tuple[dict, int]) -> None:
    decisions, seed = pair
    rng = Random(seed)
    first, second = arch.sample(decisions, rng), arch.sample(decisions, rng)
    for probability in (0.0, 0.3, 1.0):
        assert is_legal(decisions, arch.mutate(decisions, first, rng, probability=probability))
    child = arch.crossover(decisions, first, second, rng)
    assert is_legal(decisions, child)
    assert all(
        option in (first.get(name), second.get(name)) for name, option in child.items() if name in first | second
    )


@few
@given(pairs)
def test_enumeration_is_complete(pair: tuple[dict, int]) -> None:
    decisions, seed = pair
    everything = {key(form) for form in arch.enumerate_all(decisions)} if arch.size(decisions) <= 500 else None
    if everything is not None:
        assert len(everything) == arch.size(decisions)
        assert key(arch.sample(decisions, Random(seed))) in everything


@few
@given(pairs)
def test_codes_are_decoded_to_what_was_encoded(pair: tuple[dict, int]) -> None:
    decisions, seed = pair
    codes, rng = Codes(decisions), Random(seed)
    forms = [arch.sample(decisions, rng) for _ in range(5)]
    encoded = codes.encode(forms)
    assert [codes.decode(row) for row in encoded] == forms
    assert np.array_equal(codes.active(encoded), encoded > 0)
    packed = codes.pack(encoded).tolist()
    assert [packed.index(one) for one in packed] == [list(map(key, forms)).index(key(form)) for form in forms]


@few
@given(pairs)
def test_sequences_are_read_as_they_were_written(pair: tuple[dict, int]) -> None:
    decisions, seed = pair
    space = SearchSpace(decisions)
    encoder, form = SequenceEncoder(space), arch.sample(decisions, Random(seed))
    numbers = encoder.write(form)
    assert encoder.read(numbers) == form
    for place, (number, above) in enumerate(zip(numbers, encoder.under, strict=True)):
        active = above is None or numbers[above[0]] == above[1]
        assert number in encoder.legal[place] if active else number == encoder.absent


@few
@given(
    spaces(), st.dictionaries(st.sampled_from(["x0", "x1", "x0.a.y0", "?", ""]), st.sampled_from("abcd?"), max_size=4)
)
def test_anything_else_is_refused_by_one_error(decisions: dict, given_form: dict) -> None:
    try:
        assert is_legal(decisions, arch.canonical(decisions, given_form))
    except ArchitectureError as error:
        with pytest.raises(ArchitectureError):
            SearchSpace(decisions).form(given_form)
        assert "\n" not in str(error)
