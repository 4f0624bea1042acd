-- name: lock_limits
-- The row that a replica holds while it claims within limits: who waited for it sees what the one before has claimed.
insert into limits (lane) values ($1) on conflict (lane) do update set lane = excluded.lane;

-- name: hold_off
-- No replica claims for $2 seconds: the hub has said so to one of them.
insert into limits (lane, not_before) values ($1, clock_timestamp() + make_interval(secs => $2))
on conflict (lane) do update set not_before = greatest(limits.not_before, excluded.not_before);

-- name: promote
-- Requests whose back-off is over may be claimed, at most $2 at a time; answers how many.
with due as (
    select request_id from requests
    where state = 'accepted' and next_attempt_at > '-infinity' and next_attempt_at <= $1
    order by next_attempt_at
    limit $2
    for update skip locked
),
promoted as (
    update requests r set next_attempt_at = '-infinity' from due where r.request_id = due.request_id
    returning r.request_id
)
select count(*) from promoted;
