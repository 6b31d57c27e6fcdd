-- description: How late flights are by what one could see when they left.
-- owner: operations
-- test: flights > 0
select
  case when visib < 1 then 'under 1 mile' when visib < 5 then '1 to 5 miles'
       when visib < 10 then '5 to 10 miles' when visib is null then 'not known' else '10 miles' end as sight,
  count(*) as flights, avg(late::int) as share_late, avg(arr_delay) as mean_delay
from flight_weather
group by all
