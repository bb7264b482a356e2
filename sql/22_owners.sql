-- Who may change which pipeline. A pipeline's stages, and the triggers of its target, run as its owner or as the role
-- it writes as, so whoever changes it could act as both. The guards are at the tables, because delegating needs
-- rights on them: the functions are covered by them, too.

CREATE FUNCTION pulse._is_superuser() RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    RETURN EXISTS (SELECT FROM pg_roles r WHERE r.rolname = current_user AND r.rolsuper);
COMMENT ON FUNCTION pulse._is_superuser() IS 'whether the current user is a superuser; inside a SECURITY DEFINER function that is its owner';

CREATE FUNCTION pulse._require_rights(pipeline pulse.pipelines) RETURNS void
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY[pipeline.owner, coalesce(pipeline.settings ->> 'role', current_setting('pulse.role', true), '')] LOOP
        IF role_name <> '' AND NOT coalesce((
                SELECT pg_has_role(current_user, r.oid, 'MEMBER') FROM pg_roles r WHERE r.rolname = role_name), false) THEN
            RAISE EXCEPTION 'pipeline "%" has the rights of role "%", which you have not', pipeline.name, role_name
                USING ERRCODE = 'insufficient_privilege',
                      HINT = 'Pipelines are changed by members of their owner and of the role they write as, and by superusers.';
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pulse._require_rights(pulse.pipelines) IS 'raises 42501 unless the caller is a member of the roles that code of the pipeline runs as';

CREATE FUNCTION pulse._refuse_strangers(tables text[], remedy text) RETURNS void
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stranger record;
BEGIN
    SELECT t.name, r.rolname AS owner INTO stranger
      FROM unnest(tables) t (name) JOIN pg_class c ON c.oid = to_regclass(t.name) JOIN pg_roles r ON r.oid = c.relowner
     WHERE NOT r.rolsuper AND r.rolname <> current_user LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% belongs to "%": its triggers would have the rights of a superuser', stranger.name, stranger.owner
            USING ERRCODE = 'insufficient_privilege', HINT = remedy;
    END IF;
END
$$;
COMMENT ON FUNCTION pulse._refuse_strangers(text[], text) IS 'raises 42501, with the remedy as hint, when one of these tables belongs neither to the current user nor to a superuser';

-- For SQL that touches raw.* or live.*: what pulse's processes write there they write as the table's owner. As its caller:
CREATE FUNCTION pulse._require_trusted(VARIADIC tables text[]) RETURNS void
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pulse._is_superuser() THEN
        PERFORM pulse._refuse_strangers(tables, 'Call this as a role that is no superuser, or give the table to the owner of the extension.');
    END IF;
END
$$;
COMMENT ON FUNCTION pulse._require_trusted(text[]) IS 'raises 42501 when the caller is a superuser and the owner of one of these tables is not: triggers there would run as the caller';

-- In a SECURITY DEFINER function, where it does not matter who calls.
CREATE FUNCTION pulse._require_own(VARIADIC tables text[]) RETURNS void
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pulse._refuse_strangers(tables, 'Give the table to the owner of the extension, whose rights this has, whoever calls.');
END
$$;
COMMENT ON FUNCTION pulse._require_own(text[]) IS 'raises 42501 when one of these tables belongs neither to the owner of the extension, as whom its caller runs, nor to a superuser';

CREATE FUNCTION pulse._guard_pipelines() RETURNS trigger
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before pulse.pipelines;
    after pulse.pipelines;
    changed jsonb;
BEGIN
    IF pulse._is_superuser() THEN
        RETURN coalesce(NEW, OLD); -- whatever a dump holds
    END IF;
    IF TG_OP <> 'INSERT' THEN
        before := OLD;
        PERFORM pulse._require_rights(before);
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    after := NEW;
    PERFORM pulse._require_rights(after);
    -- Also what is taken back of the settings that only a superuser has.
    SELECT jsonb_object_agg(k.key, after.settings -> k.key) INTO changed
      FROM (SELECT jsonb_object_keys(after.settings) UNION SELECT unnest(ARRAY['brokers', 'kafka_options', 'secrets_file'])) k (key)
     WHERE before.settings -> k.key IS DISTINCT FROM after.settings -> k.key;
    PERFORM pulse._check_settings(changed);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION pulse._guard_pipelines() IS
'for all but superusers: only pipelines whose rights the caller has, and only settings that are his to set. Errors: 42501, 22023';
CREATE TRIGGER owners BEFORE INSERT OR UPDATE OR DELETE ON pulse.pipelines FOR EACH ROW EXECUTE FUNCTION pulse._guard_pipelines();

CREATE FUNCTION pulse._guard_stages() RETURNS trigger
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    pipeline_name text;
    pipeline pulse.pipelines;
BEGIN
    IF pulse._is_superuser() THEN
        RETURN coalesce(NEW, OLD);
    END IF;
    FOREACH pipeline_name IN ARRAY CASE TG_OP WHEN 'INSERT' THEN ARRAY[NEW.pipeline] WHEN 'DELETE' THEN ARRAY[OLD.pipeline]
                                              ELSE ARRAY[OLD.pipeline, NEW.pipeline] END LOOP
        -- As it is now, whatever the snapshot shows, and until this transaction ends.
        SELECT * INTO pipeline FROM pulse.pipelines p WHERE p.name = pipeline_name FOR SHARE;
        IF NOT FOUND THEN
            PERFORM pulse._refuse_unknown(pipeline_name);
        END IF;
        PERFORM pulse._require_rights(pipeline);
    END LOOP;
    RETURN coalesce(NEW, OLD);
END
$$;
COMMENT ON FUNCTION pulse._guard_stages() IS 'for all but superusers: only stages of pipelines whose rights the caller has. Errors: 42501, 42704';

CREATE FUNCTION pulse._guard_truncate() RETURNS trigger
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pulse._is_superuser() THEN
        RAISE EXCEPTION 'only a superuser may truncate %', TG_RELID::regclass USING ERRCODE = 'insufficient_privilege',
            HINT = 'pulse.drop_pipeline and pulse.drop_stage take single ones away.';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pulse._guard_truncate() IS 'row triggers see nothing of a TRUNCATE. Errors: 42501';
CREATE TRIGGER owners_truncate BEFORE TRUNCATE ON pulse.pipelines FOR EACH STATEMENT EXECUTE FUNCTION pulse._guard_truncate();
