-- materialize: incremental
-- partition: day(ordered_at)
select order_id, upper(customer) as who, eur * 100 as cents, ordered_at from orders
