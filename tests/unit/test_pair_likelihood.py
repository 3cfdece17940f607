"""Accuracy by likelihood."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.metrics.pair_likelihood import (
    Scored,
    item_accuracies,
    pair_accuracy,
)

NUMBERS = st.integers(-50, -1).map(float)
VARIANTS = st.tuples(NUMBERS, st.integers(1, 9))
GROUPS = st.lists(
    st.tuples(
        st.lists(VARIANTS, min_size=1, max_size=3),
        st.lists(VARIANTS, min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=6,
)


def variants(groups):
    return [
        Scored(name, correct, *variant)
        for name, sides in enumerate(groups)
        for correct, side in zip((True, False), sides)
        for variant in side
    ]


def test_by_hand():
    """Two right and two wrong variants, then one of each."""
    found = pair_accuracy(
        [
            Scored("a", True, -4.0, 2),
            Scored("a", True, -9.0, 3),
            Scored("a", False, -4.0, 1),
            Scored("a", False, -6.0, 2),
            Scored("b", False, -8.0, 4),
            Scored("b", True, -7.0, 2),
        ]
    )
    # By the sums a wins 1.5 of 4 (a tie, -4 over -6), and b wins. A token:
    # -2 and -3 against -4 and -3: 3.5 of 4; b loses, -3.5 against -2.
    expected = {"sum": (1.5 / 4 + 1) / 2, "per_token": 3.5 / 4 / 2}
    assert found == {**expected, "groups": 2}


def test_groups_of_an_item_are_averaged_first():
    """A word in three voices counts as much as a word in one."""
    wins = {("a", 1): 1, ("a", 2): 0, ("a", 3): 0, ("b", 1): 1}
    variants = [
        Scored(
            (item, voice), correct, -1.0 if correct == won else -2.0, 1, item
        )
        for (item, voice), won in wins.items()
        for correct in (True, False)
    ]
    found = pair_accuracy(variants)
    assert found == {"sum": 2 / 3, "per_token": 2 / 3, "groups": 4}
    assert item_accuracies(variants) == {
        "a": {"sum": 1 / 3, "per_token": 1 / 3},
        "b": {"sum": 1, "per_token": 1},
    }


def test_a_group_of_two_items():
    with pytest.raises(ValueError, match="'cat' are of 2 items"):
        pair_accuracy(
            [
                Scored("cat", True, -1.0, 1, "a"),
                Scored("cat", False, -1.0, 1, "b"),
            ]
        )


@given(GROUPS)
def test_what_is_right_and_wrong_exchanged(groups):
    found = pair_accuracy(variants(groups))
    other = pair_accuracy(variants([sides[::-1] for sides in groups]))
    for name in ("sum", "per_token"):
        assert 0 <= found[name] <= 1
        assert math.isclose(found[name] + other[name], 1, abs_tol=1e-9)


@given(GROUPS, st.randoms())
def test_order_does_not_matter(groups, random):
    items = variants(groups)
    shuffled = random.sample(items, len(items))
    assert pair_accuracy(shuffled) == pair_accuracy(items)


@given(GROUPS)
def test_an_oracle_and_a_constant(groups):
    items = variants(groups)
    oracle = [
        Scored(v.group, v.correct, -1.0 if v.correct else -2.0, 1)
        for v in items
    ]
    constant = [Scored(v.group, v.correct, -3.0, 2) for v in items]
    assert pair_accuracy(oracle)["sum"] == 1
    assert pair_accuracy(oracle)["per_token"] == 1
    assert pair_accuracy(constant)["sum"] == 0.5
    assert pair_accuracy(constant)["per_token"] == 0.5


@pytest.mark.parametrize("correct", [True, False])
def test_a_group_of_one_side(correct):
    with pytest.raises(ValueError, match="'cat' has .* a comparison needs"):
        pair_accuracy([Scored("cat", correct, -1.0, 1)])


def test_nothing():
    with pytest.raises(ValueError, match="nothing to compare"):
        pair_accuracy([])


@pytest.mark.parametrize(
    "likelihood, tokens", [(math.nan, 3), (-math.inf, 3), (-1.0, 0)]
)
def test_no_number(likelihood, tokens):
    with pytest.raises(ValueError, match="a variant of 'cat'"):
        Scored("cat", True, likelihood, tokens)
