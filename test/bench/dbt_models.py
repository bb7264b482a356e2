"""`make bench-dbt`: the dbt models on many events over 30 days: how long a full refresh takes, and how long
an incremental run that takes in the last day. Prints a table; nothing in it passes or fails.

The events are made by SQL straight into the day partitions of raw.events, in order of arrival and with
1 % up to two days late; reading them from Kafka is what `make bench` measures.

Arguments: --events N (20,000,000) --users N (events / 100) --threads N (2) --ingest-index yes|no (no: as pulse makes the table)
"""

import argparse
import time

from harness import dbt as harness_dbt
from harness import place
from harness.postgres import Cluster, Installation

DAYS = 30
BEGIN = "2026-10-01 00:00:00+00"

# Sessions of 1 to 15 events, a minute or less apart, through a funnel of five steps.
EVENTS = """
    CREATE UNLOGGED TABLE public.made AS
    WITH sessions AS (
        SELECT session, 'user-' || (random() ^ 2 * %(users)s)::int AS user_id,
               %(begin)s::timestamptz + random() * interval '%(days)s days' AS begins,
               (1 + random() * 14)::int AS events
          FROM generate_series(1, %(events)s / 8) AS session),
    events AS (
        SELECT s.*, n, begins + n * interval '47 seconds' AS event_timestamp,
               CASE WHEN random() < 0.01 THEN random() * interval '2 days' ELSE random() * interval '2 seconds' END AS delay
          FROM sessions s CROSS JOIN generate_series(1, events) AS n)
    SELECT md5(session || '-' || n) AS event_id,
           ('{page_view,product_view,add_to_cart,checkout,payment}'::text[])[1 + least(n / 3, 4)] AS event_type,
           user_id, event_timestamp, event_timestamp + delay AS kafka_timestamp, least(n / 3, 4)::smallint AS funnel_step_index,
           'https://shop.example.com/p/' || session::bigint * 7919 %% 2000 || '?n=' || n AS page_url,
           'https://www.example.org/' || session %% 50 AS referrer,
           ('{mobile,desktop,tablet}'::text[])[1 + session %% 3] AS device,
           jsonb_build_object('price', n * 3, 'quantity', 1, 'category', 'shoes', 'session', session) AS properties,
           'events' AS kafka_topic, (session %% 3)::int AS kafka_partition, session::bigint AS kafka_offset,
           -- A batch a second.
           date_trunc('second', event_timestamp + delay) + interval '1 second' AS ingested_at
      FROM events WHERE event_timestamp < %(begin)s::timestamptz + interval '%(days)s days'"""


def say(text):
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


class Bench:
    def __init__(self, options):
        self.options = options
        self.cluster = Cluster(place.private() / "bench-dbt", Installation(), fsync="on", shared_buffers="1GB",
                               work_mem="128MB", maintenance_work_mem="512MB", max_wal_size="16GB",
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
        self.query("SELECT setseed(0.5)")
        self.query(EVENTS % {"users": self.options.users, "begin": f"'{BEGIN}'", "days": DAYS,
                             "events": self.options.events})
        self.query("CREATE INDEX ON public.made (ingested_at)")
        self.query("ANALYZE public.made")
        for day in range(DAYS):
            self.query(f"""
                CREATE TABLE raw.events_{day} PARTITION OF raw.events
                FOR VALUES FROM ('{BEGIN}'::timestamptz + interval '{day} days')
                             TO ('{BEGIN}'::timestamptz + interval '{day + 1} days')""")
        if self.options.ingest_index == "yes":
            self.query("CREATE INDEX ON raw.events USING brin (ingested_at) WITH (pages_per_range = 32, autosummarize = on)")

    def arrive(self, since, until):
        self.query(f"""
            INSERT INTO raw.events SELECT * FROM public.made
             WHERE ingested_at >= '{BEGIN}'::timestamptz + interval '{since} days'
               AND ingested_at < '{BEGIN}'::timestamptz + interval '{until} days'
             ORDER BY ingested_at""")
        self.query("ANALYZE raw.events")  # autovacuum does that in the life of a table
        return self.query("SELECT count(*) FROM raw.events")[0][0]

    def run(self, *words, schema=None):
        began = time.monotonic()
        results = self.dbt.invoke("run", "--threads", str(self.options.threads), *words, schema=schema)
        took = time.monotonic() - began
        return took, {name.rsplit(".", 1)[1]: result["seconds"] for name, result in results.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--users", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ingest-index", choices=("yes", "no"), default="no")
    options = parser.parse_args()
    options.users = options.users or options.events // 100
    with Bench(options) as bench:
        bench.make_events()
        rows = bench.arrive(-10, DAYS - 1)
        say(f"{rows:,} events until the last day; first run")
        first, _ = bench.run()
        say(f"{first:.1f} s")
        more = bench.arrive(DAYS - 1, DAYS + 10) - rows
        say(f"{more:,} events of the last day (and late ones); incremental run")
        incremental, small = bench.run()
        say(f"{incremental:.1f} s; full refresh of everything")
        full, large = bench.run("--full-refresh", schema="refreshed")
        say(f"{full:.1f} s; comparing")
        wrong = [table for table in ("fct_sessions", "int_user_days", "fct_funnel_daily", "fct_user_engagement_daily")
                 if bench.query(f"(TABLE analytics.{table} EXCEPT ALL TABLE refreshed.{table}) UNION ALL "
                                f"(TABLE refreshed.{table} EXCEPT ALL TABLE analytics.{table}) LIMIT 1")]
        sessions = bench.query("SELECT count(*) FROM analytics.fct_sessions")[0][0]
    print(f"\n{'model':<28}{'full refresh':>14}{'incremental':>14}")
    for name in sorted(large, key=large.get, reverse=True):
        print(f"{name:<28}{large[name]:>12.1f} s{small[name]:>12.1f} s")
    print(f"{'all, with dbt itself':<28}{full:>12.1f} s{incremental:>12.1f} s\n\n"
          f"{rows + more:,} events, {sessions:,} sessions, {more:,} events in the incremental run\n"
          f"incremental / full refresh  {incremental / full:.3f}\n"
          f"same tables                 {'NO: ' + ', '.join(wrong) if wrong else 'yes'}")


if __name__ == "__main__":
    main()
