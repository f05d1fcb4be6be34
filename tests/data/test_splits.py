"""What belongs together never comes apart, whatever the order of the rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.data.splits import Components, assign, key_of, smallest_names

ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=60)


def split(rows, shares, seed=1):
    components = Components()
    names = []
    for query, document in rows:
        components.add([key_of("query", str(query)), key_of("document", str(document))])
        names.append(key_of(str(query), str(document)))
    roots = components.roots()
    return roots, assign(roots, smallest_names(roots, names), shares, seed)


@given(rows=ROWS, test=st.floats(0, 0.5), dev=st.floats(0, 0.4))
def test_rows_with_a_text_in_common_are_in_one_split(rows, test, dev):
    _, splits = split(rows, {"test": test, "dev": dev})
    for role in (0, 1):
        where = {}
        for row, index in zip(rows, splits.tolist(), strict=True):
            assert where.setdefault(row[role], index) == index
    for index, share in enumerate((test, dev)):
        assert (splits == index).sum() <= share * len(rows) + 0.5


@given(rows=ROWS, seed=st.integers(0, 5))
def test_the_order_of_the_rows_does_not_matter(rows, seed):
    order = np.random.default_rng(seed).permutation(len(rows))
    _, one = split(rows, {"test": 0.3}, seed)
    _, two = split([rows[index] for index in order], {"test": 0.3}, seed)
    assert (one[order] == two).all()


def test_links_reach_as_far_as_there_are_any():
    roots, _ = split([(1, 1), (2, 2), (3, 3), (1, 2), (9, 9), (3, 2)], {"test": 0.0})
    assert roots.tolist() == [0, 0, 0, 0, 4, 0]


def test_shares_are_met_where_rows_are_alone():
    _, splits = split([(row, row) for row in range(200)], {"test": 0.2, "dev": 0.1})
    assert np.bincount(splits).tolist() == [40, 20, 140]
    _, other = split([(row, row) for row in range(200)], {"test": 0.2, "dev": 0.1}, seed=2)
    assert (splits != other).any()
