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

-- name: open_requests
-- How many requests have not ended, by state ($1: the states that are no ends; of each up to $2, since every row is
-- looked at), and when the oldest of each was received: from the index of pages, whatever the table holds besides.
select s.state::text, counted.count, first.received_at as oldest
from unnest($1::text[]::request_state[]) as s (state)
cross join lateral (
    select count(*)
    from (select from requests r where coalesce(r.state, 'accepted') = s.state order by r.arrival limit $2) as waiting
) as counted
left join lateral (
    select r.received_at from requests r
    where coalesce(r.state, 'accepted') = s.state
    order by r.arrival
    limit 1
) as first on true;

-- name: count_in_flight
-- Generations at the hub that have not ended.
select count(*) from outputs where status in ('queued', 'processing');
