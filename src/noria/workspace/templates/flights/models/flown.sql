-- description: Every flight that landed, with its schedule, its airline and the day it left New York.
-- owner: operations
-- materialize: incremental
-- partition: day(landed_at)
-- input: landings(landed_at)
-- key: flight_id
-- test: not_null(flight_id, day, route)
-- test: unique(flight_id)
select
  landings.flight_id, landings.carrier, airlines.name as airline, landings.origin, landings.dest,
  landings.origin || '-' || landings.dest as route, landings.tailnum, schedule.distance, schedule.scheduled_at,
  landings.departed_at, landings.landed_at, landings.dep_delay, landings.arr_delay, landings.late,
  cast(timezone('America/New_York', landings.departed_at) as date) as day
from landings
left join schedule using (flight_id)
left join airlines on airlines.carrier = landings.carrier
