{#- Incremental strategy replace_tail. The new rows hold, for each key they name, everything from some
    moment on; what the table has of that key from there on is replaced. Unlike merge and delete+insert
    by row, rows that are no more (two sessions that became one) go away.

    config: meta.tail, the column that orders the rows; unique_key, the key (one column). Without a key
    everything in the table is of one. -#}
{% macro get_incremental_replace_tail_sql(arg_dict) -%}
  {%- set target = arg_dict['target_relation'] -%}
  {%- set source = arg_dict['temp_relation'] -%}
  {%- set key = arg_dict['unique_key'] -%}
  {%- set tail = config.require('meta')['tail'] -%}
  {%- set columns = get_quoted_csv(arg_dict['dest_columns'] | map(attribute='name')) -%}

  {% if key is none %}
  delete from {{ target }}
  where {{ tail }} >= (select min({{ tail }}) from {{ source }});
  {% else %}
  analyze {{ source }};

  delete from {{ target }} as old_rows
  using (
      select {{ key }}, min({{ tail }}) as since
      from {{ source }}
      group by {{ key }}
  ) as tails
  where old_rows.{{ key }} = tails.{{ key }} and old_rows.{{ tail }} >= tails.since;
  {% endif %}

  insert into {{ target }} ({{ columns }})
  select {{ columns }}
  from {{ source }}
{%- endmacro %}
