{#- Incremental strategy replace_tail. The new rows hold, for each key they name, everything from some
    moment on; what the table has of that key from there on is replaced. Unlike merge and delete+insert
    by row, rows that are no more (two sessions that became one) go away.

    config: meta.tail, the column that orders the rows; unique_key, the key (one column), and meta.day, the
    calendar day of the tail, by which an index finds the rows. Without a key everything in the table is of
    one. -#}
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
  {% set day = config.require('meta')['day'] -%}
  analyze {{ source }};

  -- By row, not by key: joined with what the table has of those keys, all of it would be read.
  delete from {{ target }}
  where ctid = any(array(
      with tails as (
          select {{ key }}, min({{ tail }}) as since
          from {{ source }}
          group by {{ key }}
      )
      select row_id
      from {{ tails_in(target, day, key, tail, ['known.ctid as row_id']) }} as old_rows
  ));
  {% endif %}

  insert into {{ target }} ({{ columns }})
  select {{ columns }}
  from {{ source }}
{%- endmacro %}

{#- For a FROM: what a table has of the keys of `tails` (a common table expression of the key and `since`),
    each from its moment on; `columns` of the table (known) and of tails. Wants an index on (day, key, tail): asked
    day by day it is read where it ends, among the last days of everybody, while one that begins with the key has
    a page of its own for each of them. -#}
{% macro tails_in(relation, day, key, tail, columns=['known.*']) -%}
  (
      select rows_of_tail.*
      from (
          select
              tails.*,
              of_tail.day
          from tails
          cross join lateral unnest({{
              days(local_date('tails.since'), '(select max(' ~ day ~ ') from ' ~ relation ~ ')')
          }}) as of_tail (day)
          -- In the order of index and table: both are read from one end to the other.
          order by of_tail.day, tails.{{ key }}
      ) as tails
      cross join lateral (
          select {{ columns | join(', ') }}
          from {{ relation }} as known
          where known.{{ day }} = tails.day and known.{{ key }} = tails.{{ key }} and known.{{ tail }} >= tails.since
          -- By the index, key after key: how little that reads, no estimate knows.
          offset 0
      ) as rows_of_tail
  )
{%- endmacro %}
