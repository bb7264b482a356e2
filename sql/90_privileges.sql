-- Nothing that writes, reads payloads or stops anything is for PUBLIC.

REVOKE ALL ON ALL ROUTINES IN SCHEMA pulse FROM PUBLIC;
GRANT USAGE ON SCHEMA pulse TO PUBLIC;
-- Called by the INSERT of a worker, as the pipeline's owner; useless anywhere else.
GRANT EXECUTE ON FUNCTION pulse._batch(), pulse._at_record(int) TO PUBLIC;
-- Guards of tables and functions call them as whoever writes there; they tell him what he knows.
GRANT EXECUTE ON FUNCTION pulse._is_superuser(), pulse._require_rights(pulse.pipelines), pulse._refuse_unknown(text),
    pulse._require_trusted(text[]) TO PUBLIC;
GRANT EXECUTE ON FUNCTION pulse.ingest_horizon(), pulse._error_codes() TO PUBLIC;
GRANT SELECT ON pulse.error_codes TO PUBLIC;
-- The rights on live.* decide who reads counters.
GRANT EXECUTE ON FUNCTION pulse._require_counter(text), pulse.daily_count(text, date), pulse.hourly_counts(text, date),
    pulse.user_daily_count(text, text, date) TO PUBLIC;
GRANT EXECUTE ON FUNCTION pulse._stat_workers(), pulse._stat_pipelines(), pulse._stat_partitions(), pulse._stat_replays(), pulse._stat_sends(), pulse._stat_stages(),
    pulse._waiting_letters(text), pulse._forward_trouble(text), pulse._sender_trouble(), pulse._outbox_depth(), pulse.health(), pulse.metrics(text) TO pg_monitor;
GRANT SELECT ON pulse.pipelines, pulse.offsets, pulse.offset_log, pulse.gaps, pulse.replays, pulse.ingests, pulse.stages, pulse.batch_log, pulse.stat_worker,
    pulse.stat_partition, pulse.stat_pipeline, pulse.stat_replay, pulse.stat_sender, pulse.stat_stage, pulse.top TO pg_monitor;

SELECT pulse._wake();
