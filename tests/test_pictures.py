"""Rows of pictures: counted, evenly spaced, of the same queries."""

import inspect

import numpy as np
import pytest
from PIL import Image

from compatlearn.errors import IncompatibleError
from compatlearn.report.pictures import choose_pictures


def test_pictures_are_counted_and_evenly_spaced():
    labels = np.zeros(10, dtype=np.int64)
    gallery = np.array([0, 1])  # row 0 is right for everybody, row 1 for nobody
    old = np.array([[1], [1], [1], [1], [1], [1], [0], [0], [1], [0]])  # 6, 7, 9 right
    new = np.array([[0], [0], [0], [0], [0], [0], [1], [0], [1], [0]])  # gained 0–5, lost 6, both wrong 8
    asked = []

    def picture(number):
        asked.append(number)
        return Image.new("RGB", (8, 8))

    chosen = choose_pictures(
        old,
        new,
        labels,
        picture,
        classes=["a", "b"],
        gallery_labels=gallery,
        gallery_picture=lambda number: Image.new("RGB", (9, 9)),
        each=2,
    )
    assert asked == [1, 4, 6, 8]
    assert [each.group for each in chosen] == ["Gained", "Gained", "Lost", "Both wrong"]
    assert chosen[0].note.startswith("6 of 10 queries are wrong with the old model's query, right with the new one's; 2 of")
    assert [label for _, label, _ in chosen[0].old] == ["b"]
    assert [hit for _, _, hit in chosen[0].new] == [True]


def test_pictures_of_a_small_gallery_skip_missing_rows():
    two = np.array([[1, -1], [0, -1]])
    chosen = choose_pictures(two, two, np.array([0, 1]), lambda number: Image.new("RGB", (8, 8)), classes=["a", "b"], each=1)
    assert [len(each.old) for each in chosen] == [1]


def test_pictures_of_different_queries_are_refused():
    with pytest.raises(IncompatibleError, match="2, 3 and 2"):
        inspect.unwrap(choose_pictures)(
            np.zeros((2, 1), int), np.zeros((3, 1), int), np.zeros(2, int), lambda number: Image.new("L", (1, 1)), classes=["a"]
        )
