-- description: Each flight with the weather of the hour in which it left.
-- owner: operations
-- materialize: incremental
-- partition: day(landed_at)
-- input: flown(landed_at)
-- key: flight_id
-- test: not_null(flight_id)
select
  flown.flight_id, flown.origin, flown.landed_at, flown.late, flown.arr_delay, weather.temp, weather.wind_speed,
  weather.precip, weather.visib, weather.pressure
from flown
left join weather
  on weather.origin = flown.origin and weather.hour_at = date_trunc('hour', flown.departed_at)
