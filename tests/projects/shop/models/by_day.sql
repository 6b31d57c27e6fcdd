select date_trunc('day', ordered_at) as day, sum(eur) as eur from orders group by all
