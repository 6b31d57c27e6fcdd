-- description: What left each of the three airports on one day, and how late, with the day's weather.
-- owner: operations
-- key: day, origin
-- test: unique(day, origin)
select
  flown.day, flown.origin, count(*) as flights, avg(flown.late::int) as share_late,
  avg(flown.dep_delay) as mean_departure_delay, any_value(weather_day.rain) as rain,
  any_value(weather_day.wind) as wind, any_value(weather_day.worst_sight) as worst_sight
from flown
left join weather_day on weather_day.day = flown.day and weather_day.origin = flown.origin
group by flown.day, flown.origin
