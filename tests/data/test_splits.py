"""What belongs together never comes apart, whatever the order of the rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.data.prepared.splits import Column, assign, components, mark_near_duplicates
from core.data.rows.hashing import text_hash

ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=60)


def split(rows, shares, seed=1):
    belonging = components(column(query for query, _ in rows), column(document for _, document in rows))
    names = np.array([text_hash(f"{query} {document}") for query, document in rows], np.uint64)
    return belonging, assign(belonging, names, shares, seed)


def column(texts, near=()) -> Column:
    found = Column.of_hashes(np.array([text_hash(str(text)) for text in texts], np.uint64))
    return Column(found.same_as, np.array(sorted(near), np.int64).reshape(-1, 2))


@given(rows=ROWS, test=st.floats(0, 0.5), dev=st.floats(0, 0.4))
def test_rows_with_a_text_in_common_are_in_one_split(rows, test, dev):
    _, splits = split(rows, {"test": test, "dev": dev})
    for role in (0, 1):
        where = {}
        for row, index in zip(rows, splits.tolist(), strict=True):
            assert where.setdefault(row[role], index) == index
    for index, share in enumerate((test, dev)):  # of what is not said twice
        distinct = {row for row, split in zip(rows, splits.tolist(), strict=True) if split == index}
        assert len(distinct) <= share * len(set(rows)) + 0.5


@given(rows=ROWS, seed=st.integers(0, 5))
def test_the_order_of_the_rows_does_not_matter(rows, seed):
    order = np.random.default_rng(seed).permutation(len(rows))
    _, one = split(rows, {"test": 0.3}, seed)
    _, two = split([rows[index] for index in order], {"test": 0.3}, seed)
    assert (one[order] == two).all()


def test_links_reach_as_far_as_there_are_any():
    belonging, _ = split([(1, 1), (2, 2), (3, 3), (1, 2), (9, 9), (3, 2)], {"test": 0.0})
    assert [number == belonging[0] for number in belonging] == [True, True, True, True, False, True]


def test_nearness_and_labels_link_too():
    queries, documents = column([1, 2, 3, 4], near=[(0, 2)]), column([1, 2, 3, 4], near=[(1, 3)])
    one, two, three, four = components(queries, documents).tolist()
    assert one == three
    assert two == four
    assert one != two
    assert len(set(components(queries, documents, np.array([7, 7, 8, 9])).tolist())) == 1


def test_a_row_repeats_an_earlier_one_that_stays():
    queries = column(["a", "b", "c", "a", "a"], near=[(0, 1), (1, 2)])
    documents = column(["x", "x", "x", "x", "y"])
    # b repeats a, and is left out; c is near to b alone, which did not stay; the last has another document.
    found = mark_near_duplicates(queries, documents, np.ones(5, bool))
    assert found.tolist() == [False, True, False, True, False]
    assert mark_near_duplicates(queries, documents, np.array([0, 1, 1, 1, 1], bool)).tolist() == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_shares_are_met_where_rows_are_alone():
    _, splits = split([(row, row) for row in range(200)], {"test": 0.2, "dev": 0.1})
    assert np.bincount(splits).tolist() == [40, 20, 140]
    _, other = split([(row, row) for row in range(200)], {"test": 0.2, "dev": 0.1}, seed=2)
    assert (splits != other).any()
