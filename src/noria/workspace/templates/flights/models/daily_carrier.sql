-- description: Punctuality of an airline on one day.
-- owner: operations
-- key: day, carrier
-- test: unique(day, carrier)
-- test: share_late between 0 and 1
select
  day, carrier, any_value(airline) as airline, count(*) as flights, count(late) as judged,
  avg(late::int) as share_late, avg(arr_delay) as mean_delay, quantile_cont(arr_delay, 0.9) as p90_delay
from flown
group by day, carrier
