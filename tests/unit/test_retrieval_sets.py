"""Queries kept out of training."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.sources.retrieval import choose_queries, hold_out
from core.data.training_rows.table import SCHEMA
from core.errors import BadData

ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 20)), min_size=4, max_size=60)


def table_of(rows) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"query": f"q{query}", "positive": f"d{document}", "negatives": [f"n{document}"], "scores": []}
            for query, document in rows
        ],
        schema=SCHEMA,
    )


@given(rows=ROWS, share=st.sampled_from([0.2, 0.5, 0.8]), seed=st.integers(0, 3))
def test_no_query_is_on_both_sides_and_every_document_can_be_found(rows, share, seed):
    queries = {f"q{query}" for query, _ in rows}
    count = round(share * len(queries))
    if not 0 < count < len(queries):
        with pytest.raises(BadData):
            choose_queries([table_of(rows)], share, seed)
        return
    taken = choose_queries([table_of(rows)], share, seed)
    rest, held_out = hold_out(table_of(rows), taken)
    trained = set(rest.column("query").to_pylist())
    asked = set(held_out.queries.values())
    assert trained | asked == queries
    assert not trained & asked
    assert len(asked) == count
    assert set(held_out.corpus.values()) == {f"{kind}{document}" for _, document in rows for kind in "dn"}
    for query_id, judged in held_out.qrels.items():
        answers = {held_out.corpus[name] for name, grade in judged.items() if grade}
        assert answers == {f"d{d}" for q, d in rows if f"q{q}" == held_out.queries[query_id]}
    assert choose_queries([table_of(rows[::-1])], share, seed) == taken


def test_a_query_of_two_datasets_is_held_out_of_both():
    tables = [table_of([(query, query) for query in queries]) for queries in (range(40), range(20, 60))]
    taken = choose_queries(tables, 0.25, 42)
    assert len(taken) == 15
    rests = [hold_out(table, taken)[0] for table in tables]
    assert not taken & {query for rest in rests for query in rest.column("query").to_pylist()}
