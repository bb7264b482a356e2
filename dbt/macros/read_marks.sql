{#- Marks between which an incremental model reads. Both are taken by statements of their own, before
    the model's query sees anything, and are literals in it, so that the planner knows how few rows
    they leave. -#}

{#- Held until the model is committed, and taken before its marks: of two runs at once the later one waits here and
    then reads what the earlier one has left to do. Both would write the same events otherwise. -#}
{% macro one_run_at_a_time() -%}
  {%- do run_query("select pg_advisory_xact_lock(" ~ lock_of(this) ~ ")") -%}
  {%- set seen = run_query("
      select
          current_setting('transaction_isolation') as isolation,
          exists(select from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and granted) as is_held
  ").rows[0] -%}
  {%- if seen['isolation'] != 'read committed' -%}
    {{ exceptions.raise_compiler_error(
        "What is read must be newer than the marks up to which it is read: use read committed, not "
        ~ seen['isolation']) }}
  {%- elif not seen['is_held'] -%}
    {{ exceptions.raise_compiler_error(
        "Marks and what is written by them must be of one transaction: use a profile without autocommit") }}
  {%- endif -%}
{%- endmacro %}

{#- For a model that reads another one in two statements: no run changes that one in between. -#}
{% macro keep_still(relation) -%}
  {%- do run_query("select pg_advisory_xact_lock_shared(" ~ lock_of(relation) ~ ")") -%}
{%- endmacro %}

{% macro lock_of(relation) -%}
  hashtextextended('dbt run of {{ relation }}', 0)
{%- endmacro %}

{#- Everything ingested before this is committed. Without the extension a guess: nobody takes longer
    than pulse__commit_delay_minutes to commit. -#}
{% macro read_until() -%}
  {%- if not execute -%}
    {{ return("'infinity'::timestamptz") }}
  {%- endif -%}
  {%- do one_run_at_a_time() -%}
  {%- set has_pulse = run_query(
      "select to_regprocedure('pulse.ingest_horizon()') is not null as has_pulse").rows[0]['has_pulse'] -%}
  {%- if has_pulse -%}
    {%- set horizon = 'pulse.ingest_horizon()' -%}
  {%- else -%}
    {%- set horizon = "clock_timestamp() - interval '" ~ var('pulse__commit_delay_minutes') ~ " minutes'" -%}
  {%- endif -%}
  {%- set taken = run_query("select (" ~ horizon ~ ")::text as horizon").rows[0]['horizon'] -%}
  {{ return("'" ~ taken ~ "'::timestamptz") }}
{%- endmacro %}

{#- The newest ingested_at that a model has taken in. A batch has one ingested_at and becomes visible
    at once, so everything newer is still to come, and nothing else is. -#}
{% macro read_since(relation, column='ingested_at') -%}
  {%- if not execute -%}
    {{ return("'-infinity'::timestamptz") }}
  {%- endif -%}
  {%- do one_run_at_a_time() -%}
  {%- set newest = run_query("select coalesce(max(" ~ column ~ "), '-infinity')::text as newest from " ~ relation) -%}
  {{ return("'" ~ newest.rows[0]['newest'] ~ "'::timestamptz") }}
{%- endmacro %}

{#- The first day or week of a table whose rows are newer than what this model has taken in: here its
    tail begins. -#}
{% macro first_changed(relation, day) -%}
  {%- if not execute -%}
    {{ return("'infinity'::date") }}
  {%- endif -%}
  {%- set since = read_since(this, 'last_ingested_at') -%}
  {%- do keep_still(relation) -%}
  {#- Behind an OFFSET, or min() would be looked for from the first day of the table on, row after row. #}
  {%- set first = run_query("
      select coalesce(min(first_day)::text, 'infinity') as first
      from (
          select " ~ day ~ " as first_day
          from " ~ relation ~ "
          where last_ingested_at > " ~ since ~ "
          offset 0
      ) as changed").rows[0]['first'] -%}
  {{ return("'" ~ first ~ "'::date") }}
{%- endmacro %}
