{#- For on-run-end. Of a table just made no page is known to be visible to all: autovacuum would begin with it at once,
    and write all of it again in the middle of the next runs. Later on it sees to the table by itself, for what a run
    adds is a small part of it. -#}
{% macro vacuum_new_tables(results) -%}
  {%- for result in results if execute and result.status == 'success' -%}
    {#- Made by CREATE TABLE AS SELECT, not added to by INSERT. #}
    {%- if result.node.config.materialized == 'incremental' and result.adapter_response.get('code') == 'SELECT' -%}
      {%- do run_query('vacuum ' ~ result.node.relation_name) -%}
    {%- endif -%}
  {%- endfor -%}
{%- endmacro %}
