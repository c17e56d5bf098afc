"""Team-draft interleaving: fair to both rankings, and clicks are credited to who added the item."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compatlearn.errors import DataError
from compatlearn.evaluation.interleaving import Interleaved, interleave, preference

rankings = st.lists(st.integers(0, 20), unique=True, max_size=12)


@given(rankings, rankings, st.integers(1, 12), st.integers(0, 99))
def test_a_list_of_both(first: list[int], second: list[int], k: int, seed: int) -> None:
    mixed = interleave(first, second, k, seed=seed)
    assert len(set(mixed.items)) == len(mixed.items) == min(k, len({*first, *second}))
    for ranking, side in ((first, True), (second, False)):
        own = [item for item, came in zip(mixed.items, mixed.first, strict=True) if came == side]
        assert own == [item for item in ranking if item in own]  # in its own order
        for item in own:  # and never past an item that was still to be had
            before = mixed.items[: mixed.items.index(item)]
            assert set(ranking[: ranking.index(item)]) <= set(before)
    if first and second and k > 1:
        rounds = [sum(mixed.first[start : start + 2]) for start in range(0, 2 * min(len(first), len(second), k) // 4 * 2, 2)]
        assert set(rounds) <= {0, 1, 2}


def test_a_user_who_clicks_at_random_prefers_neither() -> None:
    random, wins = np.random.default_rng(0), []
    for seed in range(2000):
        mixed = interleave(list("abcdefghij"), list("jihgfedcba"), 10, seed=seed)
        wins.append(mixed.wins(random.choice(mixed.items, 1)))
    found = preference(wins)
    assert found.p > 0.01
    assert found.first + found.second == 2000


def test_who_likes_the_first_items_of_one_prefers_it() -> None:
    wins = [interleave(["good", "a", "b"], ["c", "d", "good"], 3, seed=seed).wins(["good"]) for seed in range(50)]
    found = preference(wins)
    assert (found.first, found.second) == (50, 0)
    assert found.p < 1e-6


def test_same_rankings_tie_in_the_long_run_and_foreign_clicks_do_not_count() -> None:
    mixed = Interleaved(("a", "b"), (True, False))
    assert [mixed.wins(clicked) for clicked in (["a"], ["b"], ["a", "b"], [], ["z"], ["a", "a"])] == [1, -1, 0, 0, 0, 1]
    assert preference([]).p == 1.0
    assert preference([0, 0]).ties == 2
    with pytest.raises(DataError, match="got 7"):
        preference([7])
    with pytest.raises(DataError, match="k = 0"):
        interleave([1], [2], 0)
