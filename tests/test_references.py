"""What labels give without a new model, and to a backfill: heads from a space to itself, against slow references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compatlearn import Features, compatibility, fit_adapter
from compatlearn.adapters.references import head_references, with_head


def system(rows: int = 240, seed: int = 0) -> tuple[Features, Features]:
    """Old and new features of the same items in 8 classes; the old ones are worse."""
    random, labels = np.random.default_rng(seed), np.arange(rows) % 8
    old = 0.8 * random.normal(size=(8, 5))[labels] + random.normal(size=(rows, 5))
    new = 1.2 * random.normal(size=(8, 7))[labels] + random.normal(size=(rows, 7))
    return Features(old.astype(np.float32), labels, space="old"), Features(new.astype(np.float32), labels, space="new")


def slow_right(queries: np.ndarray, gallery: Features, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the nearest row of the gallery, the query's own id left out, has the query's label."""
    right = []
    for query, row, label in zip(queries.astype(float), rows, labels, strict=True):
        far = ((gallery.vectors.astype(float) - query) ** 2).sum(axis=1)
        far[gallery.ids == row] = np.inf
        right.append(gallery.labels[far.argmin()] == label)
    return np.array(right)


@pytest.mark.parametrize("apart", [False, True], ids=["queries are the gallery", "a gallery of its own"])
def test_the_references_are_searches_through_heads_from_a_space_to_itself(apart: bool) -> None:
    old, new = system()
    asked = np.arange(160, 240) if apart else np.arange(240)
    stored = np.arange(160) if apart else asked
    old_query, new_query, old_gallery, new_gallery = (f.take(rows) for rows in (asked, stored) for f in (old, new))
    fitted = fit_adapter("neighbour-head", new.vectors[:160], old.vectors[:160], old.labels[:160], options={"epochs": 5})
    old_head, new_head = (
        with_head("neighbour-head", one.vectors[:160], one.labels[:160], options={"epochs": 5}) for one in (old, new)
    )
    found = head_references(
        old_query=old_query,
        old_gallery=old_gallery,
        new_query=new_query,
        new_gallery=new_gallery if apart else None,
        adapter=fitted,
        old_head=old_head,
        new_head=new_head,
    )
    labels = old.labels[asked]
    before = slow_right(old_query.vectors, old_gallery, asked, labels)
    cross = slow_right(fitted(new_query.vectors), old_gallery, asked, labels)
    without = slow_right(old_head(old_query.vectors), old_gallery, asked, labels)
    backfill = slow_right(new_head(new_query.vectors), new_gallery, asked, labels)
    assert len({mean.mean() for mean in (before, cross, without, backfill)}) == 4
    assert found.old_head.top1.value == pytest.approx(without.mean())
    assert found.backfill_head.top1.value == pytest.approx(backfill.mean())
    assert found.gain_over_old_head.value == pytest.approx(cross.mean() - without.mean())
    assert found.update_gain_head.value == pytest.approx((cross.mean() - before.mean()) / (backfill.mean() - before.mean()))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), metric=st.sampled_from(["euclidean", "cosine"]))
def test_heads_that_move_nothing_give_the_plain_old_queries_and_the_plain_backfill(seed: int, metric: str) -> None:
    old, new = system(60, seed)
    adapter = fit_adapter("ridge", new.vectors, old.vectors)
    plain = compatibility(old_query=old, old_gallery=old, new_query=new, adapter=adapter, metric=metric)

    def same(vectors: np.ndarray) -> np.ndarray:
        return vectors

    heads = {"old_head": same, "new_head": same}
    found = head_references(old_query=old, old_gallery=old, new_query=new, adapter=adapter, **heads, metric=metric)
    assert (found.old_head, found.backfill_head) == (plain.old_self, plain.new_self)
    assert (found.gain_over_old_head, found.update_gain_head) == (plain.gain, plain.update_gain)
