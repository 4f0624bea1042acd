-- name: delete_ended_requests
-- Requests that ended before $1 and have nothing left to tell, at most $2 of them; answers how many. Their outputs and
-- events go with them: an event that stayed would stand in the way of the same id when it comes again. (Events that are
-- sent again go out in any case.)
with old as (
    select r.request_id
    from requests r
    where r.finished_at < $1
        and not exists (
            select from outbox o join unpublished u on u.row_id = o.row_id
            where o.request_id = r.request_id and o.stored and not o.repeated
        )
    order by r.finished_at
    limit $2
),
told as (
    delete from outbox o using old where o.request_id = old.request_id and o.stored and not o.repeated
),
gone as (
    delete from requests r using old where r.request_id = old.request_id returning r.request_id
)
select count(*) from gone;

-- name: delete_old_answers
-- Events older than $1 that no request takes along (rejections, repeats) and that are published, at most $2 of them;
-- answers how many.
with gone as (
    delete from outbox
    where row_id in (
        select o.row_id from outbox o
        where (not o.stored or o.repeated) and o.created_at < $1
            and not exists (select from unpublished u where u.row_id = o.row_id)
        order by o.created_at
        limit $2
    )
    returning row_id
)
select count(*) from gone;

-- name: delete_old_cancels
-- Cancels received before $1 whose request never came; answers how many.
with gone as (
    delete from early_cancels
    where request_id in (
        select e.request_id from early_cancels e
        where e.received_at < $1 and not exists (select from requests r where r.request_id = e.request_id)
        order by e.received_at
        limit $2
    )
    returning request_id
)
select count(*) from gone;

-- name: delete_old_orphans
-- Ends of generations that were not ours; answers how many.
with gone as (
    delete from orphan_events
    where generation_id in (
        select generation_id from orphan_events where received_at < $1 order by received_at limit $2
    )
    returning generation_id
)
select count(*) from gone;
