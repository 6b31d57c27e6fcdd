-- description: The weather of an airport on one day in New York.
-- owner: operations
-- materialize: view
select
  cast(timezone('America/New_York', hour_at) as date) as day, origin, sum(precip) as rain,
  avg(wind_speed) as wind, max(wind_gust) as gust, min(visib) as worst_sight, avg(temp) as temp
from weather
group by all
