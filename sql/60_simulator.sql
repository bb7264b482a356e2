-- The clickstream simulator. The stream itself is made in src/sim; here are its arguments and the
-- tables of the truth, which live in schema sim and outlive the extension.

CREATE FUNCTION pulse._create_sim_tables() RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner oid := (SELECT e.extowner FROM pg_extension e WHERE e.extname = 'pulse');
BEGIN
    IF EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = 'sim' AND n.nspowner <> owner) THEN
        RAISE EXCEPTION 'schema sim does not belong to the owner of the extension'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Change its owner or drop it.';
    END IF;
    IF to_regclass('sim.rejects') IS NOT NULL THEN
        RETURN;
    END IF;
    IF current_user <> pg_get_userbyid(owner) THEN
        RAISE EXCEPTION 'the tables of sim are not there yet' USING ERRCODE = 'insufficient_privilege',
            HINT = format('The first simulation is for %I, who owns the extension, to run.', pg_get_userbyid(owner));
    END IF;
    IF to_regnamespace('sim') IS NULL THEN
        CREATE SCHEMA sim;
    END IF;
    COMMENT ON SCHEMA sim IS 'what pulse.simulate() sent: the true answers';

    CREATE TABLE sim.runs (
        run_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        topic        text NOT NULL,
        seed         bigint NOT NULL,
        events       bigint NOT NULL,
        users        int NOT NULL,
        rate         double precision,
        start_at     timestamptz NOT NULL,
        duration     interval NOT NULL,
        late         double precision NOT NULL,
        duplicates   double precision NOT NULL,
        malformed    double precision NOT NULL,
        out_of_order double precision NOT NULL,
        bots         double precision NOT NULL,
        records_sent bigint NOT NULL DEFAULT 0,
        pid          int NOT NULL DEFAULT pg_backend_pid(),
        started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
        finished_at  timestamptz
    );
    COMMENT ON TABLE sim.runs IS 'one row per pulse.simulate(); records_sent grows while it runs';
    COMMENT ON COLUMN sim.runs.events IS 'good and distinct events; duplicates and malformed records are sent on top';
    COMMENT ON COLUMN sim.runs.finished_at IS 'NULL while it runs, and for ever when it was cancelled: then there is no truth either';

    CREATE TABLE sim.sessions (
        run_id             bigint NOT NULL,
        user_id            text NOT NULL,
        session_started_at timestamptz NOT NULL,
        session_ended_at   timestamptz NOT NULL,
        events             int NOT NULL,
        page_views         int NOT NULL,
        landing_page       text NOT NULL,
        exit_page          text NOT NULL,
        referrer           text,
        device             text NOT NULL,
        ordered_steps      smallint NOT NULL,
        is_bounce          boolean NOT NULL,
        is_converted       boolean NOT NULL,
        PRIMARY KEY (run_id, user_id, session_started_at)
    );
    COMMENT ON TABLE sim.sessions IS
        'a silence of more than 30 minutes ends a session; after 24 hours without one the visit is cut';
    COMMENT ON COLUMN sim.sessions.ordered_steps IS 'steps of the funnel taken in order, whatever lies between them: 0 to 5';
    COMMENT ON COLUMN sim.sessions.is_bounce IS 'one page view and nothing else';

    CREATE TABLE sim.days (
        run_id           bigint NOT NULL,
        day              date NOT NULL,
        events           bigint NOT NULL,
        late_events      bigint NOT NULL,
        sessions         bigint NOT NULL,
        active_users     bigint NOT NULL,
        active_users_7d  bigint NOT NULL,
        active_users_30d bigint NOT NULL,
        PRIMARY KEY (run_id, day)
    );
    COMMENT ON TABLE sim.days IS 'by day (UTC) of the events, sessions by day of their start';
    COMMENT ON COLUMN sim.days.late_events IS 'arrived more than 5 minutes after they happened';
    COMMENT ON COLUMN sim.days.active_users_7d IS 'in the seven days that end with this one';

    CREATE TABLE sim.funnel_daily (
        run_id        bigint NOT NULL,
        day           date NOT NULL,
        step          smallint NOT NULL,
        event_type    text NOT NULL,
        users         bigint NOT NULL,
        ordered_users bigint NOT NULL,
        PRIMARY KEY (run_id, day, step)
    );
    COMMENT ON COLUMN sim.funnel_daily.users IS 'who took the step on that day, in any order';
    COMMENT ON COLUMN sim.funnel_daily.ordered_users IS
        'who took it after all steps before it, in one session that began on that day';

    CREATE TABLE sim.rejects (
        run_id     bigint NOT NULL,
        error_code text NOT NULL,
        count      bigint NOT NULL,
        PRIMARY KEY (run_id, error_code)
    );
    COMMENT ON TABLE sim.rejects IS 'malformed records sent, by the error code they must get';
END
$$;
COMMENT ON FUNCTION pulse._create_sim_tables() IS 'the tables of schema sim, unless they are there';

CREATE FUNCTION pulse._begin_simulation(
        INOUT events bigint, INOUT users int, INOUT rate double precision, INOUT duration interval,
        INOUT start_at timestamptz, INOUT seed bigint, late double precision, duplicates double precision,
        malformed double precision, out_of_order double precision, bots double precision, INOUT topic text,
        OUT run_id bigint)
    LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    share record;
    seconds double precision;
BEGIN
    FOR share IN
        SELECT s.name, s.value FROM (VALUES ('late', late), ('duplicates', duplicates), ('malformed', malformed),
            ('out_of_order', out_of_order), ('bots', bots)) AS s (name, value)
    LOOP
        IF share.value IS NULL OR NOT share.value BETWEEN 0 AND 1 OR (share.name = 'bots' AND share.value = 1) THEN
            RAISE EXCEPTION '% must be a share between 0 and 1', share.name
                USING ERRCODE = 'invalid_parameter_value', HINT = 'One percent is 0.01.';
        END IF;
    END LOOP;
    IF users IS NULL OR users NOT BETWEEN 1 AND 10000000 THEN
        RAISE EXCEPTION 'users must be between 1 and 10,000,000' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'It is the number of visitors to choose from.';
    END IF;
    IF NOT rate BETWEEN 0.001 AND 10000000 THEN
        RAISE EXCEPTION 'rate must be between 0.001 and 10,000,000 events per second'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it out to send as fast as possible.';
    END IF;
    IF duration <= interval '0' THEN
        RAISE EXCEPTION 'duration must be positive' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'It is the time that the stream covers, like 3 days.';
    END IF;
    events := coalesce(events, (rate * extract(epoch FROM duration))::bigint, 100000);
    IF events NOT BETWEEN 1 AND 10000000000 THEN
        RAISE EXCEPTION 'events must be between 1 and 10,000,000,000' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Without events, it is rate times duration.';
    END IF;
    duration := coalesce(duration, CASE WHEN start_at IS NULL THEN make_interval(secs => events / rate) END, '1 hour');
    seconds := extract(epoch FROM duration);
    IF events / seconds > 100000 THEN
        RAISE EXCEPTION 'more than 100,000 events per second of the stream' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Choose a longer duration. As fast as possible is without rate, whatever the duration.';
    END IF;
    start_at := coalesce(start_at, CASE WHEN rate IS NULL THEN clock_timestamp() - duration ELSE clock_timestamp() END);
    IF NOT (start_at >= '1970-01-02Z' AND start_at + duration < '3000-01-01Z') THEN
        RAISE EXCEPTION 'start_at is out of range' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Events happen between 1970 and 3000.';
    END IF;
    start_at := date_trunc('milliseconds', start_at);
    seed := coalesce(seed, (random() * 1000000000)::bigint);
    topic := coalesce(topic, split_part(replace(current_setting('pulse.topic'), ' ', ''), ',', 1));
    IF topic !~ '^[a-zA-Z0-9._-]{1,249}$' THEN
        RAISE EXCEPTION 'bad topic name "%"', topic USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Name one topic: letters, digits, dot, underscore and hyphen.';
    END IF;

    PERFORM pulse._create_sim_tables();
    INSERT INTO sim.runs (topic, seed, events, users, rate, start_at, duration, late, duplicates, malformed,
                          out_of_order, bots)
    VALUES (_begin_simulation.topic, _begin_simulation.seed, _begin_simulation.events, _begin_simulation.users,
            _begin_simulation.rate, _begin_simulation.start_at, _begin_simulation.duration, _begin_simulation.late,
            _begin_simulation.duplicates, _begin_simulation.malformed, _begin_simulation.out_of_order,
            _begin_simulation.bots)
    RETURNING runs.run_id INTO run_id;
END
$$;
COMMENT ON FUNCTION pulse._begin_simulation(bigint, int, double precision, interval, timestamptz, bigint, double precision,
    double precision, double precision, double precision, double precision, text) IS
'checks the arguments of pulse.simulate(), fills in what was left out, and enters the run in sim.runs';

CREATE FUNCTION pulse._write_truth(run_id bigint, part text, answers json) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    CASE part
    WHEN 'sessions' THEN
        INSERT INTO sim.sessions
        SELECT _write_truth.run_id, s.user_id, timestamptz '1970-01-01Z' + s.started_ms * interval '1 millisecond',
               timestamptz '1970-01-01Z' + s.ended_ms * interval '1 millisecond', s.events, s.page_views, s.landing_page,
               s.exit_page, s.referrer, s.device, s.ordered_steps, s.is_bounce, s.is_converted
          FROM json_to_recordset(answers) AS s (user_id text, started_ms bigint, ended_ms bigint, events int,
               page_views int, landing_page text, exit_page text, referrer text, device text, ordered_steps smallint,
               is_bounce boolean, is_converted boolean);
    WHEN 'days' THEN
        INSERT INTO sim.days
        SELECT _write_truth.run_id, date '1970-01-01' + d.day, d.events, d.late_events, d.sessions, d.active_users,
               d.active_users_7d, d.active_users_30d
          FROM json_to_recordset(answers) AS d (day int, events bigint, late_events bigint, sessions bigint,
               active_users bigint, active_users_7d bigint, active_users_30d bigint);
    WHEN 'funnel_daily' THEN
        INSERT INTO sim.funnel_daily
        SELECT _write_truth.run_id, date '1970-01-01' + f.day, f.step, f.event_type, f.users, f.ordered_users
          FROM json_to_recordset(answers) AS f (day int, step smallint, event_type text, users bigint,
               ordered_users bigint);
    WHEN 'rejects' THEN
        INSERT INTO sim.rejects
        SELECT _write_truth.run_id, r.error_code, r.count
          FROM json_to_recordset(answers) AS r (error_code text, count bigint);
    END CASE;
END
$$;
COMMENT ON FUNCTION pulse._write_truth(bigint, text, json) IS 'rows of one table of schema sim';

CREATE FUNCTION pulse._note_simulation(run_id bigint, records_sent bigint, is_finished boolean) RETURNS void
    LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp AS $$
    UPDATE sim.runs SET records_sent = _note_simulation.records_sent,
                        finished_at = CASE WHEN is_finished THEN clock_timestamp() END
     WHERE runs.run_id = _note_simulation.run_id
$$;
COMMENT ON FUNCTION pulse._note_simulation(bigint, bigint, boolean) IS 'how far a run of the simulator is';

CREATE PROCEDURE pulse.simulate(
        events bigint DEFAULT NULL, users int DEFAULT 10000, rate double precision DEFAULT NULL,
        duration interval DEFAULT NULL, start_at timestamptz DEFAULT NULL, seed bigint DEFAULT NULL,
        late double precision DEFAULT 0, duplicates double precision DEFAULT 0, malformed double precision DEFAULT 0,
        out_of_order double precision DEFAULT 0, bots double precision DEFAULT 0, topic text DEFAULT NULL,
        INOUT run_id bigint DEFAULT NULL, INOUT records bigint DEFAULT NULL)
    LANGUAGE c AS 'MODULE_PATHNAME', 'pulse_simulate';
COMMENT ON PROCEDURE pulse.simulate(bigint, int, double precision, interval, timestamptz, bigint, double precision,
    double precision, double precision, double precision, double precision, text, bigint, bigint) IS
'sends a seeded clickstream to a topic (default: the first of pulse.topic) and the true answers about it to schema sim.
events (100000, or rate x duration): good and distinct; duplicates and malformed records come on top, as shares of it.
rate (events per second; default: as fast as possible), duration (the time the stream covers: events / rate, or 1 hour), start_at
(when it begins: now with a rate, else duration ago): record timestamps are those of the stream, so a topic''s retention applies to them.
late (more than 5 minutes), out_of_order (up to 1 minute), duplicates, malformed (in turn the sixteen error codes that a payload alone can get), bots: shares from 0 to 1.
The same arguments give the same bytes. Returns when every record is delivered. Outside a transaction block progress is committed
to sim.runs; a cancelled run has sent what records_sent says and leaves no truth. Errors: 22023, 42501, 55000, 08000 (broker)';
