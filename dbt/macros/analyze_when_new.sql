{#- For a post-hook: a table just made has no statistics, and the models after it would be planned blindly.
    Later on autovacuum sees to them; sampling a large table in every run would take as long as the run. -#}
{% macro analyze_when_new() -%}
  {%- if not is_incremental() -%}
    analyze {{ this }}
  {%- endif -%}
{%- endmacro %}
