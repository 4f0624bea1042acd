-- name: feed_look
-- The next $2 rows of the outbox behind $1 (up to $4), and those of $3, as they stand; with the oldest transaction that is
-- still running and the first that has not begun. Rows that are not shown, and bodies that are not published, are not
-- read. One row with nulls where there is none.
select
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint as oldest_running,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next_begun,
    f.row_id, f.published, f.shown, f.request_id, f.type, f.body
from (values (1)) as one
left join (
    select
        o.row_id, u.row_id is null as published, not o.repeated and o.routing_key is not null as shown, o.request_id,
        o.type, case when u.row_id is null and not o.repeated then o.body end as body
    from (
        (
            select row_id, repeated, routing_key, request_id, type, body
            from outbox
            where row_id > $1 and row_id <= $4
            order by row_id
            limit $2
        )
        union all
        (
            select row_id, repeated, routing_key, request_id, type, body
            from outbox
            where row_id = any($3::bigint[]) and row_id <= $1
        )
    ) as o
    left join lateral (select w.row_id from unpublished w where w.row_id = o.row_id offset 0) as u on true
) as f on true
order by f.row_id;

-- name: feed_end
-- The last row of the outbox, 0 when it is empty.
select coalesce(max(row_id), 0) from outbox;

-- name: missed_of
-- The published events of the request $1 behind the row $2, or among $3, up to $4, but for $5; what was answered to
-- messages that were not accepted only with $6.
select o.row_id, o.request_id, o.type, o.body
from (
    select row_id, request_id, type, body from outbox where request_id = $1 and stored and not repeated
    union all
    select row_id, request_id, type, body
    from outbox
    where request_id = $1 and not stored and routing_key is not null and $6
) as o
where (o.row_id > $2 or o.row_id = any($3::bigint[])) and o.row_id <= $4 and o.row_id <> all ($5::bigint[])
    and not exists (select from unpublished u where u.row_id = o.row_id)
order by o.row_id;
