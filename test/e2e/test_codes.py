"""Each error code: one record, one letter with that code."""

import json
from datetime import datetime, timedelta, timezone

import pytest

from harness.events import SPOILERS
from harness.pipeline import event

# Where another test produces them: they need a server that crashes, a broker that holds what cannot be fetched.
ELSEWHERE = {"quarantined": "test_poison.py", "too_large_to_fetch": "test_too_large.py"}


def at(**ago):
    return (datetime.now(timezone.utc) - timedelta(**ago)).isoformat(timespec="milliseconds")


@pytest.mark.topic(partitions=1)
@pytest.mark.server(pulse__max_error_ratio=1, pulse__max_message_bytes="16kB")
def test_every_code_is_produced_by_one_record(pulse):
    pulse.query("ALTER TABLE raw.events ADD CHECK (device <> 'forbidden')")
    schema = {"properties": {"price": {"type": "number", "minimum": 0}}}
    pulse.query("SELECT pulse.alter_pipeline('events', %s)", json.dumps({"schema": schema, "unknown_fields": "reject"}))
    produced = {code: spoil(event(funnel_step_index=1)) for code, spoil in SPOILERS.items()}
    pulse.query("SELECT pulse.add_stage('events', 'half', 'filter', 'SELECT FROM batch WHERE 1 / (coalesce(funnel_step_index, 0) - 7) < 9')")
    produced |= {
        "stage_error": event(funnel_step_index=7),
        "number": event(funnel_step_index=70_000),
        "time": event(event_timestamp="yesterday"),
        "oversize": event(page_url="x" * 20_000),
        "schema_framed_payload": b"\x00\x00\x00\x00\x07" + b"\x02avro",
        "too_old": event(event_timestamp=at(days=500)),
        "too_new": event(event_timestamp=at(days=-3)),
        "too_long": event(event_type="x" * 5_000),
        "unknown_field": event(shop="nobody knows"),
        "sql_error": event(device="forbidden"),
        "skipped": event(),
    }
    pulse.query("SELECT pulse.pause('events')")
    pulse.produce(list(produced.values()))
    position = list(produced).index("skipped")
    pulse.query("SELECT pulse.skip('events', %s, 0, %s)", pulse.topic, position)
    pulse.query("SELECT pulse.resume('events')")
    pulse.wait_caught_up()
    # A field that the schema names must be kept for it. Paused, or the record may come before the workers have started again.
    pulse.query("SELECT pulse.pause('events')")
    pulse.query("SELECT pulse.alter_pipeline('events', '{\"unknown_fields\": \"keep\"}')")
    pulse.query("SELECT pulse.resume('events')")
    pulse.produce([event(price=-1)])
    pulse.wait_caught_up()
    produced["schema"] = event(price=-1)

    letters = pulse.query("SELECT kafka_offset, error_code, error_class FROM raw.dlq ORDER BY 1")
    assert [code for _, code, _ in letters] == list(produced)
    assert [offset for offset, _, _ in letters] == list(range(len(produced)))
    known = dict(pulse.query("SELECT error_code, error_class FROM pulse.error_codes"))
    assert {code: name for _, code, name in letters} == {code: known[code] for code in produced}
    assert set(known) - set(produced) == set(ELSEWHERE)
    assert pulse.value("SELECT max(octet_length(error_message)) FROM raw.dlq") < 1_600
    assert "x" * 257 not in pulse.cluster.log_text(), "payload in the server log"
    assert pulse.count() == 0
    pulse.verify()
