"""The whole way: what the simulator sent, through Kafka, raw.events and dbt, equals what it says is true."""

import threading

import pytest

from harness import dbt, truth

QUICK, ALL = [1], [1, 2, 3]
TROUBLE = "late => 0.03, duplicates => 0.02, malformed => 0.02, out_of_order => 0.05, bots => 0.04"
def seeds():
    return [pytest.param(seed, marks=[] if seed in QUICK else pytest.mark.soak) for seed in ALL]


@pytest.mark.parametrize("seed", seeds())
def test_models_equal_the_truth(pulse, how_many, seed):
    dbt.environment()
    pulse.broker.alter_topic(pulse.topic, **{"retention.ms": "-1"})
    events = how_many(15_000, 200_000)
    failure = []

    def simulate():
        try:
            pulse.query(f"CALL pulse.simulate(events => {events}, users => {events // 10}, duration => '9 days',"
                        f" rate => {events / 20}, start_at => now() - interval '10 days', seed => {seed}, {TROUBLE})")
        except Exception as error:
            failure.append(error)

    sender = threading.Thread(target=simulate)
    sender.start()
    models = dbt.Dbt(pulse.cluster, name=f"truth-{seed}")
    try:
        pulse.wait_for(f"SELECT count(*) > {events // 4} FROM raw.events", "a part of the events", 60)
        models.invoke("run")  # while they come
        sender.join()
        assert not failure
        pulse.wait_caught_up()
        models.invoke("run")  # incremental from there
        models.invoke("test", "--exclude-resource-type", "unit_test")
    finally:
        sender.join()
        models.close()

    for what, true_rows, different in truth.compare(pulse.cluster):
        assert true_rows > 0 and different == [], what
