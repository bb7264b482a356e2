"""`make bench-dbt`: the dbt models on many events over 30 days: how long a full refresh takes, and how long
an incremental run that takes in the last day, each a process of its own. Prints a table; nothing in it passes or fails.
raw.events has the index by arrival that dbt/README.md advises for a large table; without it an incremental run reads
all of raw.events, which is shown too.

The events are made by SQL straight into the day partitions of raw.events, in order of arrival and with
1 % up to two days late; reading them from Kafka is what `make bench` measures.

Arguments: --events N (20,000,000) --users N (events / 100) --threads N (2)
"""

import argparse
import os
import time

from harness import dbt as harness_dbt
from harness import place
from harness.postgres import Cluster, Installation

DAYS = 30
BEGIN = "2026-10-01 00:00:00+00"

# Sessions of 1 to 15 events, a minute or less apart, through a funnel of five steps: what chance decides,
# and what follows from it. The second is made only on the way into raw.events, or it would be the larger half of the disk.
CHANCES = """
    CREATE UNLOGGED TABLE public.made AS
    WITH sessions AS (
        SELECT session, (random() ^ 2 * {users})::int AS visitor,
               '{begin}'::timestamptz + random() * interval '{days} days' AS begins,
               (1 + random() * 14)::int AS events
          FROM generate_series(1, {events} / 8) AS session),
    events AS (
        SELECT session, n, visitor, begins + n * interval '47 seconds' AS event_timestamp,
               CASE WHEN random() < 0.01 THEN random() * interval '2 days' ELSE random() * interval '2 seconds' END AS delay
          FROM sessions CROSS JOIN generate_series(1, events) AS n)
    SELECT session, n, visitor, event_timestamp, event_timestamp + delay AS kafka_timestamp
      FROM events WHERE event_timestamp < '{begin}'::timestamptz + interval '{days} days'"""

EVENTS = """
    INSERT INTO raw.events
    SELECT md5(session || '-' || n) AS event_id,
           ('{{page_view,product_view,add_to_cart,checkout,payment}}'::text[])[1 + least(n / 3, 4)] AS event_type,
           'user-' || visitor AS user_id, event_timestamp, kafka_timestamp, least(n / 3, 4)::smallint AS funnel_step_index,
           'https://shop.example.com/p/' || session::bigint * 7919 % 2000 || '?n=' || n AS page_url,
           'https://www.example.org/' || session % 50 AS referrer,
           ('{{mobile,desktop,tablet}}'::text[])[1 + session % 3] AS device,
           jsonb_build_object('price', n * 3, 'quantity', 1, 'category', 'shoes', 'session', session) AS properties,
           'events' AS kafka_topic, session % 3 AS kafka_partition, session::bigint AS kafka_offset,
           -- A batch a second.
           date_trunc('second', kafka_timestamp) + interval '1 second' AS ingested_at
      FROM (SELECT * FROM public.made
             WHERE kafka_timestamp >= '{begin}'::timestamptz + interval '{since} days'
               AND kafka_timestamp < '{begin}'::timestamptz + interval '{until} days'
             ORDER BY kafka_timestamp) AS arriving"""


def say(text):
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


class Bench:
    def __init__(self, options):
        self.options = options
        self.cluster = Cluster(place.private() / "bench-dbt", Installation(), fsync="on", shared_buffers="1GB",
                               work_mem="128MB", maintenance_work_mem="512MB", max_wal_size="8GB",
                               checkpoint_timeout="30min", pulse__database="pulse")

    def __enter__(self):
        self.cluster.installation.prepare()
        harness_dbt.environment()
        self.cluster.create().start().create_database()
        self.query("CREATE EXTENSION pulse")
        self.query("SELECT pulse.create_pipeline('events', '{events}')")
        self.dbt = harness_dbt.Dbt(self.cluster, name="bench")
        return self

    def __exit__(self, *_):
        self.dbt.close()
        self.cluster.destroy()

    def query(self, sql, *parameters):
        with self.cluster.connect(options="-c statement_timeout=0") as connection:
            cursor = connection.execute(sql, *parameters)
            return cursor.fetchall() if cursor.description else None

    def make_events(self):
        say(f"making {self.options.events:,} events of {self.options.users:,} users over {DAYS} days")
        self.query("SET work_mem = '512MB'; SELECT setseed(0.5);"
                   + CHANCES.format(users=self.options.users, begin=BEGIN, days=DAYS, events=self.options.events))
        self.query("ANALYZE public.made")
        for day in range(DAYS):
            self.query(f"""
                CREATE TABLE raw.events_{day} PARTITION OF raw.events
                FOR VALUES FROM ('{BEGIN}'::timestamptz + interval '{day} days')
                             TO ('{BEGIN}'::timestamptz + interval '{day + 1} days')""")
        self.query("CREATE INDEX by_arrival ON raw.events USING brin (ingested_at) WITH (pages_per_range = 32, autosummarize = on)")

    def arrive(self, since, until):
        self.query(EVENTS.format(begin=BEGIN, since=since, until=until))
        self.query("VACUUM ANALYZE raw.events")  # autovacuum does that in the life of a table
        return self.query("SELECT count(*) FROM raw.events")[0][0]

    def run(self, *words, schema=None):
        """Seconds of a `dbt run` from nothing to its end, and of each model."""
        self.dbt.invoke("parse", schema=schema)  # as every earlier run has left it
        self.dbt.close()
        began = time.monotonic()
        results = self.dbt.invoke("run", "--threads", str(self.options.threads), *words, schema=schema)
        took = time.monotonic() - began
        say(f"{took:.1f} s; processors' load {os.getloadavg()[0]:.1f}")
        return took, {name.rsplit(".", 1)[1]: result["seconds"] for name, result in results.items()}

    def different(self, one, other):
        """Tables that are not the same rows; by sums of hashes, for sorting them would fill the disk."""
        tables = [table for table, in self.query(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_type = 'BASE TABLE'", [other])]
        assert len(tables) > 8, tables
        return [table for table in tables if len(set(
            self.query(f"SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {schema}.{table} t")[0]
            for schema in (one, other))) != 1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--users", type=int)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.users = options.users or options.events // 100
    runs = {}
    with Bench(options) as bench:
        bench.make_events()
        rows = bench.arrive(-10, DAYS - 1)
        say(f"{rows:,} events until the last day; first run")
        bench.run()
        more = bench.arrive(DAYS - 1, DAYS + 10) - rows
        say(f"{more:,} events of the last day (and late ones); incremental run")
        runs["incremental"] = bench.run()
        say("again, with nothing new")
        runs["nothing new"] = bench.run()
        say("and again, without the index by arrival")
        bench.query("DROP INDEX raw.by_arrival")
        runs["no index"] = bench.run()
        say("full refresh of everything")
        runs["full refresh"] = bench.run("--full-refresh", schema="refreshed")
        say("comparing")
        wrong = bench.different("analytics", "refreshed")
        sessions = bench.query("SELECT count(*) FROM analytics.fct_sessions")[0][0]
    (full, large), incremental = runs["full refresh"], runs["incremental"][0]
    print(f"\n{'seconds':<28}" + "".join(f"{name:>14}" for name in runs))
    for model in sorted(large, key=large.get, reverse=True):
        print(f"{model:<28}" + "".join(f"{models[model]:>14.1f}" for _, models in runs.values()))
    print(f"{'all, with dbt itself':<28}" + "".join(f"{took:>14.1f}" for took, _ in runs.values()) + "\n\n"
          f"{rows + more:,} events, {sessions:,} sessions, {more:,} events in the incremental run\n"
          f"incremental / full refresh  {incremental / full:.3f}\n"
          f"same tables                 {'NO: ' + ', '.join(wrong) if wrong else 'yes'}")


if __name__ == "__main__":
    main()
