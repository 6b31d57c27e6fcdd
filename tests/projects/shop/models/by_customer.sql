select customer, count(*) as orders, sum(eur) as eur from orders group by all
