"""When rows reach an Arrow or Parquet file, and how they are read back."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.data.io.table_files import ArrowFile, ParquetFile, map_arrow_file, map_arrow_stream, read_batches

SCHEMA = pa.schema([("number", pa.int64())])


def rows(count):
    return [{"number": number} for number in range(count)]


def sizes(path):
    return [batch.num_rows for batch in read_batches(path)]


def test_rows_are_written_in_batches(tmp_path):
    with ArrowFile(tmp_path / "rows.arrow", SCHEMA, batch_rows=3) as file:
        for row in rows(7):
            file.add(row)
        assert (file.rows, file.waiting) == (7, [{"number": 6}])
    assert sizes(tmp_path / "rows.arrow") == [3, 3, 1]
    assert map_arrow_file(tmp_path / "rows.arrow").to_pylist() == rows(7)


def test_a_file_without_rows_has_no_batch(tmp_path):
    ArrowFile(tmp_path / "rows.arrow", SCHEMA).close()
    assert sizes(tmp_path / "rows.arrow") == []
    assert map_arrow_file(tmp_path / "rows.arrow").schema == SCHEMA


def test_a_stream_has_the_same_rows(tmp_path):
    with ArrowFile(tmp_path / "rows.arrow", SCHEMA, batch_rows=3, stream=True) as file:
        for row in rows(4):
            file.add(row)
    assert map_arrow_stream(tmp_path / "rows.arrow").to_pylist() == rows(4)


def test_on_full_decides_when_rows_are_written(tmp_path):
    seen = []

    def flush():
        seen.extend(row["number"] for row in file.waiting)
        file.flush()

    with ArrowFile(tmp_path / "rows.arrow", SCHEMA, batch_rows=2, on_full=flush) as file:
        for row in rows(5):
            file.add(row)
    assert seen == [0, 1, 2, 3]
    assert sizes(tmp_path / "rows.arrow") == [2, 2, 1]


def write_and_fail(file):
    with file:
        for row in rows(3):
            file.add(row)
        raise KeyError


def test_an_exception_drops_the_rows_that_wait(tmp_path):
    file = ArrowFile(tmp_path / "rows.arrow", SCHEMA, batch_rows=2)
    with pytest.raises(KeyError):
        write_and_fail(file)
    assert sizes(tmp_path / "rows.arrow") == [2]


def test_tables_and_rows_keep_their_order(tmp_path):
    path = tmp_path / "new/rows.parquet"
    with ParquetFile(path, SCHEMA) as file:
        file.add({"number": 0})
        file.add_table(pa.Table.from_pylist([{"number": 1}, {"number": 2}], schema=SCHEMA))
        file.add({"number": 3})
        file.flush()
        file.add_table(pa.Table.from_pylist(rows(5000), schema=SCHEMA))
        file.add({"number": 4})
        assert file.rows == 5005
    assert pq.read_table(path).to_pylist() == [*rows(4), *rows(5000), {"number": 4}]
    found = pq.ParquetFile(path).metadata
    assert [found.row_group(index).num_rows for index in range(found.num_row_groups)] == [4, 5000, 1]
