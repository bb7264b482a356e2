"""Fixtures of the dbt tests: databases that the tests fill themselves, and those of the end-to-end tests."""

import uuid
from datetime import timedelta

import pytest
from clickstream import BEGIN, moment
from e2e.conftest import (broker, cluster, how_many, installation, make_cluster, make_pulse, pulse,  # noqa: F401
                          pytest_addoption, pytest_collection_modifyitems, pytest_configure,
                          pytest_runtest_makereport, shared_broker, this_run, topic)

from harness import dbt as harness_dbt
from harness import place
from harness.postgres import Cluster


@pytest.fixture(scope="session", autouse=True)
def dbt_environment():
    return harness_dbt.environment(place.ROOT / "test" / "dbt" / "requirements.txt")


@pytest.fixture
def make_dbt():
    """make_dbt(cluster, dbname): a Dbt that ends with the test."""
    made = []

    def make(on, **options):
        made.append(harness_dbt.Dbt(on, name=f"test-{len(made)}", **options))
        return made[-1]

    yield make
    for dbt in made:
        dbt.close()


class Store:
    """A database with the tables of pulse, and batches written as pulse writes them: one ingested_at
    each, duplicates dropped by the key."""

    def __init__(self, server):
        self.cluster, self.dbname = server, f"store_{uuid.uuid4().hex[:8]}"
        server.create_database(self.dbname)
        self.query("CREATE EXTENSION pulse")
        # One table: partitions are made by the worker, and none runs here.
        self.query("""SELECT pulse.create_pipeline('events', '{events}', 'raw.events', '{"partition_by": "none"}')""")
        self.batches = 0

    def query(self, sql, *parameters):
        return self.cluster.query(sql, *parameters, dbname=self.dbname)

    def write(self, batch):
        self.batches += 1
        ingested_at = BEGIN + timedelta(days=40, seconds=self.batches)
        with self.cluster.connect(self.dbname) as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO raw.events (event_id, event_type, user_id, event_timestamp, kafka_timestamp, page_url, "
                "referrer, device, ingested_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [(e.event_id, e.event_type, e.user_id, moment(e.at), moment(e.arrives), e.page_url, e.referrer,
                  e.device, ingested_at) for e in batch])

    def rows(self, table, columns="*", schema="analytics"):
        return self.query(f"SELECT {columns} FROM {schema}.{table}")

    def differences(self, table, schema, other):
        """Rows that only one of two schemas has."""
        return self.query(f"(TABLE {schema}.{table} EXCEPT ALL TABLE {other}.{table}) UNION ALL "
                          f"(TABLE {other}.{table} EXCEPT ALL TABLE {schema}.{table})")


@pytest.fixture(scope="session")
def warehouse(installation):  # noqa: F811
    """A server for Stores: no broker is named."""
    server = Cluster(place.private() / f"e2e-{uuid.uuid4().hex[:8]}", installation, pulse__database="pulse")
    server.create().start().create_database()
    yield server
    server.destroy()


@pytest.fixture
def store(warehouse):
    return Store(warehouse)
