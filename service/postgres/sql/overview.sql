-- name: overview
-- What may keep the requests of the lane $1 waiting: for how many seconds the hub wants no POSTs, how many events (up
-- to $2) wait for the relay and since when, and since when the oldest request waits for a claim. (`coalesce`: see the
-- migration 0007.)
select
    (select extract(epoch from not_before - clock_timestamp())::float8 from limits where lane = $1) as hold_s,
    (select count(*) from (select from unpublished limit $2) as waiting) as unpublished,
    (
        select o.created_at
        from (select row_id from unpublished order by row_id limit 1) as first
        cross join lateral (select e.created_at from outbox e where e.row_id = first.row_id offset 0) as o
    ) as unpublished_since,
    (
        select received_at from requests
        where coalesce(state, 'accepted') = 'accepted'
        order by arrival
        limit 1
    ) as waiting_since;
