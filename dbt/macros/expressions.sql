{#- The calendar day of a moment, where pulse__time_zone is. -#}
{% macro local_date(moment) -%}
  (({{ moment }}) at time zone '{{ var("pulse__time_zone") }}')::date
{%- endmacro %}

{#- All days from one to another, as an array. -#}
{% macro days(first, last) -%}
  array(select generate_series(({{ first }})::timestamp, ({{ last }})::timestamp, interval '1 day')::date)
{%- endmacro %}

{#- A page without query string and fragment. -#}
{% macro page_of(url) -%}
  split_part(split_part({{ url }}, '#', 1), '?', 1)
{%- endmacro %}

{#- The value of the first event of a group that has one; direction desc: of the last. -#}
{% macro first_known(column, direction='asc') -%}
  (array_agg({{ column }} order by event_timestamp {{ direction }}, funnel_step {{ direction }} nulls
  {{- ' last' if direction == 'asc' else ' first' }}, event_id collate "C" {{ direction }})
  filter (where {{ column }} is not null))[1]
{%- endmacro %}
