"""A pipeline's JSON Schema: who is a letter by which rule, changed while it runs, letters that come back; and random
schemas against another implementation of draft 4."""

import json
import random
import re

import pytest
from jsonschema import Draft4Validator

from harness import schemas
from harness.pipeline import event

PRICES = {"required": ["price"], "properties": {"price": {"$ref": "#/definitions/money"}, "device": {"enum": ["phone", "desktop"]}},
          "definitions": {"money": {"type": "number", "minimum": 0}}}
LETTERS = "SELECT kafka_offset, error_class, error_code, error_path, error_message FROM raw.dlq WHERE status = 'new' ORDER BY 1"


def set_schema(pulse, schema):
    pulse.query("SELECT pulse.alter_pipeline('events', %s)", json.dumps({"schema": schema}))


@pytest.mark.topic(partitions=1)
@pytest.mark.server(pulse__max_error_ratio=1)
def test_rejects_name_place_and_rule_and_come_back_under_another_schema(pulse):
    set_schema(pulse, PRICES)
    pulse.produce([event(price=1), event(price=-2), event(price="3"), event(), event(price=0, device="robot")])
    pulse.wait_caught_up()
    letters = pulse.query(LETTERS)
    assert [letter[:4] for letter in letters] == [
        (1, "schema", "schema", "/price"), (2, "schema", "schema", "/price"), (3, "schema", "schema", ""),
        (4, "schema", "schema", "/device")]
    assert letters[0][4] == "breaks #/definitions/money/minimum, expected 0, found number -2"
    assert letters[3][4] == 'breaks #/properties/device/enum, expected ["phone", "desktop"], found string robot'
    shown = dict(pulse.query("SELECT field, value FROM pulse.dlq_show((SELECT min(dlq_id) FROM raw.dlq))"))
    assert "#/definitions/money/minimum" in shown["message"] and shown["path"] == "/price"
    assert '"price": -2   <-- schema' in shown["event"]
    pulse.check()

    # While it runs: the records behind the change are judged anew, those before stay what they are.
    set_schema(pulse, {"properties": {"price": {"type": "number"}}})
    assert pulse.query("CALL pulse.dlq_replay()") == [(3, 0, 1)]
    pulse.produce([event(price=-5), event(price="6")])
    pulse.wait_caught_up()
    assert [(row[0], row[4]) for row in pulse.query(LETTERS)] == [
        (2, 'breaks #/properties/price/type, expected "number", found string 3'),
        (6, 'breaks #/properties/price/type, expected "number", found string 6')]
    set_schema(pulse, None)
    assert pulse.query("CALL pulse.dlq_replay()") == [(2, 0, 0)]
    assert pulse.count() == 7
    pulse.query("SELECT pulse.seek('events', 'earliest')")
    pulse.wait_caught_up()
    assert pulse.count() == 7
    pulse.check()


def test_changed_under_load_no_event_is_lost(pulse, how_many):
    count = how_many(20_000, 200_000)
    load = pulse.start_producing(count, rate=how_many(5_000, 20_000), seed=3)
    generator = random.Random(7)
    for number in range(how_many(6, 40)):
        schema = {"properties": {"device": {"pattern": "^[a-z]+$"}, "funnel_step_index": {"maximum": generator.randint(1, 9)}}}
        pulse.query("SELECT pulse.alter_pipeline('events', %s)",
                    json.dumps({"schema": schema if number % 3 else None, "max_error_ratio": 1}))
        pulse.wait_for("SELECT sum(records) > %s FROM pulse.offsets", timeout=120, parameters=(number * count // 50,))
    assert load.wait(300) == 0
    pulse.wait_caught_up()
    assert pulse.count() + pulse.count("raw.dlq") == count
    assert pulse.query("SELECT DISTINCT error_code FROM raw.dlq") in ([], [("schema",)])
    pulse.check()
    set_schema(pulse, None)
    pulse.query("CALL pulse.dlq_replay()")
    assert pulse.count() == count
    pulse.check()


def test_random_schemas_judge_as_another_implementation(cluster, how_many):
    """What is not refused is judged rightly. PULSE_TEST_SEED repeats a run."""
    seed = schemas.seed()
    print("seed", seed)
    generator = random.Random(seed)
    query = cluster.query
    query("CREATE TABLE public.judged (id int, properties jsonb)")
    query("SELECT pulse.create_pipeline('judged', '{judged}', 'public.judged')")
    taken, outcomes = 0, {True: 0, False: 0}
    for _ in range(how_many(150, 5_000)):
        schema = {"properties": {"value": {"$ref": "#/definitions/whole"}},
                  "definitions": {"whole": schemas.whole_schema(generator, "#/definitions/whole/definitions/")}}
        try:
            query("SELECT pulse.alter_pipeline('judged', %s)", json.dumps({"schema": schema}))
        except schemas.REFUSED as refused:
            assert re.match(r'JSON Schema, at "/', str(refused)), refused
            continue
        taken += 1
        oracle = Draft4Validator(schemas.for_python(schema))
        documents = [{"value": schemas.document(generator)} for _ in range(10)]
        judged = query("SELECT (pulse.decode('judged', convert_to(value, 'UTF8'))).error_code FROM unnest(%s::text[]) value",
                       [json.dumps(document, ensure_ascii=False) for document in documents])
        for document, (code,) in zip(documents, judged):
            expected = oracle.is_valid(document)
            outcomes[expected] += 1
            assert code == (None if expected else "schema"), f"{json.dumps(schema)} on {json.dumps(document)}"
    assert taken > how_many(75, 2_500) and min(outcomes.values()) > how_many(100, 5_000), (taken, outcomes)
