-- description: Punctuality of a route on one day.
-- owner: operations
-- key: day, route
-- test: unique(day, route)
-- test: share_late between 0 and 1
select
  day, route, any_value(origin) as origin, any_value(dest) as dest, max(distance) as distance,
  count(*) as flights, avg(late::int) as share_late, avg(arr_delay) as mean_delay
from flown
group by day, route
