select date_trunc('day', ordered_at) as day, list(order_id) as ids, min(who) as first from lines group by all
