"""Reads the exports of a fleet's recordings as their users do, and holds each reader's sums against `tracer report`.

Usage: read_exports.py DIR READER... with the files in DIR that xtask/src/exports.rs makes.
"""

import collections
import csv
import datetime
import glob
import json
import re
import sys

KEYS = ["host", "pid", "reason"]
SUMS = "host, pid, reason, sum(pages) AS pages, count(*) AS events, max(blackout_ns) AS longest"


def hosts(directory):
    """The machines of the recordings, as they are named."""
    with open(f"{directory}/report.json") as file:
        return {recording["host"] for recording in json.load(file)["recordings"]}


def report(directory):
    """What `tracer report --json --by host,process,reason` says: (host, pid, reason) -> (pages, events, longest)."""
    found = {}
    with open(f"{directory}/report.json") as file:
        (table,) = json.load(file)["tables"]
    for row in table["rows"]:
        if row.get("process") == "nobody":
            continue  # folios that no process maps are another table
        key = (row["host"], row.get("pid"), row["reason"])
        assert key not in found, key
        found[key] = (row["mappings"], row["events"], row["blackout_max_ns"])
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
    null = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
    names = pyarrow.csv.read_csv(f"{directory}/moves.csv", convert_options=null)
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
    [found] = db.sql(query).fetchall()
    with open(f"{directory}/all.jsonl") as file:
        lines = [line for line in map(json.loads, file) if line["kind"] == "failure"]
    assert found == (len(lines), sum(max(1, len(line["owners"])) for line in lines)), found


def pandas(directory):
    import pandas as pd

    for frame in (
        pd.read_parquet(f"{directory}/moves.parquet"),
        pd.read_parquet(f"{directory}/set"),
        pd.read_csv(f"{directory}/moves.csv", parse_dates=["time"], dtype_backend="numpy_nullable", low_memory=False),
    ):
        assert isinstance(frame["time"].dtype, pd.DatetimeTZDtype), frame.dtypes
        grouped = frame.groupby(KEYS, dropna=False, observed=True)
        found = grouped.agg(pages=("pages", "sum"), events=("pages", "size"), longest=("blackout_ns", "max"))
        found = found.reset_index().astype(object)
        yield sums(found.where(found.notna(), None).itertuples(index=False))


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
    assert all(str(day) == str(first)[:10] == str(last)[:10] for day, first, last in days), days
    assert len(days) == len(glob.glob(f"{directory}/set/date=*")) > 2, days
    session.stop()


def perfetto(directory):
    events, runs = timeline(f"{directory}/moves.pftrace")
    assert len(runs) == len({event["machine"] for event in events}) == len(hosts(directory)), runs
    moves = [event for event in events if event["category"] == "moves,owner"]
    for kind in ("moves", "unmapped", "failures", "compactions"):
        with open(f"{directory}/{kind}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows, kind
        # Each event is once with its actor, if that is known, and once with each owner that is known.
        by_side = {
            "actor": [row for row in rows if row.get("place", "1") == "1" and row["actor_pid"]],
            "owner": [row for row in rows if kind == "moves" or kind == "failures" and row["pid"]],
        }
        for side, expected in by_side.items():
            found = [event for event in events if event["category"] == f"{kind},{side}"]
            assert_same(f"{kind},{side}", [as_row(event) for event in found], [of_event(row) for row in expected])
            pid = "pid" if side == "owner" else "actor_pid"
            assert all(event["pid"] == event["of"].get(pid) for event in found), (kind, side)
        for row in rows[::1000]:
            time = datetime.datetime.fromisoformat(row["time"])
            micros = (time - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(microseconds=1)
            assert micros == (int(row["time_ns"]) + runs[row["host"]]) // 1000, row
    groups = collections.defaultdict(lambda: [0, 0, None])
    for event in moves:
        of = event["of"]
        group = groups[event["host"], of.get("pid"), of.get("reason")]
        blackout = of.get("blackout_ns")
        assert event["begin"] == event["end"] or event["end"] - event["begin"] == blackout, event
        group[0] += of["pages"]
        group[1] += 1
        group[2] = blackout if group[2] is None else max(group[2], blackout or 0)
    yield sums((*key, *group) for key, group in groups.items())
    counted = collections.Counter()
    for event in events:
        if event["track"] == "pages moved in a second":
            counted[event["host"]] += event["value"]
    unmapped = [event for event in events if event["category"] == "unmapped,actor"]
    moved = collections.Counter()
    # A page that several processes map is one page: its first mapping counts.
    for event in unmapped + [event for event in moves if event["of"].get("nth", 1) == 1]:
        moved[event["host"]] += event["of"]["pages"]
    assert counted == moved, (counted, moved)


def timeline(path):
    """A trace's events with names instead of numbers, and by host how far its clock is behind the time of day."""
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TracePacket, TrackEvent

    with open(path, "rb") as file:
        trace = Trace.FromString(file.read())
    words, clocks, tracks, open_slices, free, flows = {}, {}, {}, {}, {}, collections.Counter()
    events, runs = [], {}
    for packet in trace.packet:
        sequence = packet.trusted_packet_sequence_id
        if packet.sequence_flags & TracePacket.SEQ_INCREMENTAL_STATE_CLEARED:
            words[sequence] = collections.defaultdict(dict)
            clocks[sequence] = packet.trace_packet_defaults.timestamp_clock_id
        known = words[sequence]
        data = packet.interned_data
        for table in ("event_categories", "event_names", "debug_annotation_names"):
            known[table].update((entry.iid, entry.name) for entry in getattr(data, table))
        values = data.debug_annotation_string_values
        known["values"].update((entry.iid, entry.str.decode()) for entry in values)
        if packet.HasField("clock_snapshot"):
            snapshot = {clock.clock_id: clock.timestamp for clock in packet.clock_snapshot.clocks}
            offset = snapshot[1] - snapshot[clocks[sequence]]
            assert clocks[sequence] >= 64 and packet.clock_snapshot.primary_trace_clock == 1, packet
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            above = tracks.get(track.parent_uuid)
            assert bool(track.parent_uuid) == bool(above), packet
            name = track.process.process_name or track.name
            assert name.isprintable(), name
            host, _, rest = (above or {"host": name}).get("host").partition(": ")
            pid = track.process.pid or (above or {}).get("pid")
            tracks[track.uuid] = {"host": host, "pid": pid, "track": name, "machine": packet.machine_id}
            runs[host] = offset
        if not packet.HasField("track_event"):
            continue
        event = packet.track_event
        track = tracks[event.track_uuid]
        assert track["machine"] == packet.machine_id, packet
        if event.type == TrackEvent.TYPE_SLICE_END:
            ended = open_slices.pop(event.track_uuid)
            ended["end"] = packet.timestamp
            assert ended["begin"] <= ended["end"], ended
            free[event.track_uuid] = packet.timestamp
            continue
        found = {
            **track,
            "begin": packet.timestamp,
            "end": packet.timestamp,
            "category": ",".join(known["event_categories"][iid] for iid in event.category_iids),
            "value": event.counter_value,
            "of": {annotation_name(known, entry): annotation_value(known, entry) for entry in event.debug_annotations},
        }
        events.append(found)
        flows.update((flow, "from") for flow in event.flow_ids)
        flows.update((flow, "to") for flow in event.terminating_flow_ids)
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            assert event.track_uuid not in open_slices, packet
            assert packet.timestamp >= free.get(event.track_uuid, 0), "slices overlap"
            open_slices[event.track_uuid] = found
        elif event.type == TrackEvent.TYPE_INSTANT:
            assert known["event_names"][event.name_iid].isprintable(), packet
    assert not open_slices, open_slices
    linked = {flow for flow, _ in flows}
    assert set(flows.values()) == {1} and len(flows) == 2 * len(linked), "a flow has two ends"
    return events, runs


def annotation_name(known, entry):
    return known["debug_annotation_names"][entry.name_iid]


def annotation_value(known, entry):
    kind = entry.WhichOneof("value")
    value = getattr(entry, kind)
    if kind == "string_value_iid":
        return known["values"][value]
    # CSV has no unsigned numbers.
    return value - (1 << 64) if kind == "pointer_value" and value >> 63 else value


# The columns of a run, which a track tells.
RUN_COLUMNS = {"time", "host", "boot_id", "recording_id", "kernel"}


def as_row(event):
    value = lambda value: str(value).lower() if isinstance(value, bool) else str(value)
    of = {name: value(known) for name, known in event["of"].items()}
    return event["host"], tuple(sorted({**of, "time_ns": str(event["end"])}.items()))


def of_event(row):
    return row["host"], tuple(sorted((name, value) for name, value in row.items() if value and name not in RUN_COLUMNS))


def assert_same(what, found, expected):
    found, expected = collections.Counter(found), collections.Counter(expected)
    missing, more = expected - found, found - expected
    assert not missing and not more, (what, list(missing.items())[:2], list(more.items())[:2])


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
