"""Reads the exports of a fleet's recordings as their users do, and holds each reader's sums against `tracer report`.

Usage: read_exports.py DIR READER... with the files in DIR that xtask/src/exports.rs makes.
"""

import glob
import json
import re
import sys

KEYS = ["host", "pid", "reason"]
SUMS = "host, pid, reason, sum(pages) AS pages, count(*) AS events, max(blackout_ns) AS longest"


def report(directory):
    """What `tracer report --json --by host,process,reason` says: (host, pid, reason) -> (pages, events, longest)."""
    found = {}
    with open(f"{directory}/report.json") as file:
        (table,) = json.load(file)["tables"]
    for row in table["rows"]:
        key = (row["host"], row.get("pid"), row["reason"])
        assert key not in found, key
        found[key] = (row["pages"], row["events"], row["blackout_max_ns"])
    return found


def sums(rows):
    """Rows of KEYS, pages, events and the longest blackout; some readers have floats or NaN for what may be null."""
    number = lambda value: None if value is None or value != value else int(value)
    return {
        (host, number(pid), reason): (number(pages), number(events), number(longest))
        for host, pid, reason, pages, events, longest in rows
    }


def pyarrow(directory):
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    def grouped(table):
        found = table.group_by(KEYS).aggregate([("pages", "sum"), ([], "count_all"), ("blackout_ns", "max")])
        found = found.select([*KEYS, "pages_sum", "count_all", "blackout_ns_max"])
        return sums(zip(*(column.to_pylist() for column in found.columns)))

    moves = pq.read_table(f"{directory}/moves.parquet")
    types = {name: moves.schema.field(name).type for name in ("time", "time_ns", "vaddr", "pid", "comm", "ambiguous")}
    expected = [pa.timestamp("us", tz="UTC"), pa.int64(), pa.int64(), pa.int32(), pa.string(), pa.bool_()]
    assert list(types.values()) == expected, types
    for column in moves.columns:
        if column.type == pa.string():
            hostile = [text for text in column.unique().to_pylist() if text and re.search(r"[\x00-\x1f\x7f]", text)]
            assert not hostile, hostile
    yield grouped(moves)
    # With its types inferred; Parquet's are the same.
    names = pyarrow.csv.read_csv(f"{directory}/moves.csv")
    assert names.column_names == moves.column_names
    for name in ("time_ns", "vaddr", "pid", "ambiguous", "old_pfn"):
        assert names[name].to_pylist() == moves[name].to_pylist(), name
    yield grouped(names)
    yield grouped(pq.read_table(f"{directory}/set", partitioning="hive"))


def duckdb(directory):
    import duckdb as db

    for source in (
        f"'{directory}/moves.parquet'",
        f"'{directory}/moves.csv'",
        f"read_parquet('{directory}/set/**/*.parquet', hive_partitioning = true)",
        f"read_csv('{directory}/set-csv/**/*.csv', hive_partitioning = true)",
    ):
        yield sums(db.sql(f"SELECT {SUMS} FROM {source} GROUP BY ALL").fetchall())
    # Each failure once, although it has a row for each of its mappings.
    query = f"SELECT count(*) FILTER (place = 1), count(*) FROM '{directory}/failures.parquet'"
    [(folios, rows)] = db.sql(query).fetchall()
    assert (folios, rows) == (1200, 1599), (folios, rows)


def polars(directory):
    import polars as pl

    frames = [
        pl.scan_parquet(f"{directory}/moves.parquet"),
        pl.scan_csv(f"{directory}/moves.csv", infer_schema_length=10_000, try_parse_dates=True),
        pl.scan_parquet(f"{directory}/set/**/*.parquet", hive_partitioning=True),
    ]
    for frame in frames:
        assert isinstance(frame.collect_schema()["time"], pl.Datetime), frame.collect_schema()
        found = frame.group_by(KEYS).agg(pl.sum("pages"), pl.len(), pl.max("blackout_ns"))
        yield sums(found.collect().select([*KEYS, "pages", "len", "blackout_ns"]).iter_rows())


def pyspark(directory):
    from pyspark.sql import SparkSession

    options = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        # For two queries it does not pay to compile well.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    }
    session = SparkSession.builder.master("local[1]").config(map=options).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    session.read.parquet(f"{directory}/set").createOrReplaceTempView("moves")
    yield sums(session.sql(f"SELECT {SUMS} FROM moves GROUP BY host, pid, reason").collect())
    days = session.sql("SELECT date, min(time), max(time) FROM moves GROUP BY date").collect()
    assert all(str(day) == str(first)[:10] == str(last)[:10] for day, first, last in days) and len(days) == 2, days
    session.stop()


def main():
    directory, *readers = sys.argv[1:]
    expected = report(directory)
    assert len(expected) > 50, expected
    assert glob.glob(f"{directory}/set/date=*/host=*/part-*.parquet")
    for reader in readers:
        count = 0
        for found in globals()[reader](directory):
            count += 1
            wrong = {key: (expected.get(key), found.get(key)) for key in expected.keys() | found.keys()}
            wrong = {key: both for key, both in wrong.items() if both[0] != both[1]}
            if wrong:
                sys.exit(f"{reader}, form {count}: {len(wrong)} of {len(expected)} groups differ: {list(wrong.items())[:5]}")
        print(f"{reader}: {count} forms agree with the report in {len(expected)} groups")


main()
