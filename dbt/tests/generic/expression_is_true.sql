{#- The expression is true of every row; null counts as true, as in a CHECK. -#}
{% test expression_is_true(model, expression) %}

select *
from {{ model }}
where not ({{ expression }})

{% endtest %}
