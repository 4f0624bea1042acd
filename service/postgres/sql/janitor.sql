-- name: delete_ended_requests
-- Requests that ended before $1, at most $2 of them; their outputs go with them.
delete from requests
where request_id in (select request_id from requests where finished_at < $1 order by finished_at limit $2);

-- name: delete_published_events
-- Events published before $1, at most $2 of them.
delete from outbox
where row_id in (select row_id from outbox where published_at < $1 order by published_at limit $2);

-- name: delete_old_orphans
-- Ends of generations that were not ours.
delete from orphan_events
where generation_id in (select generation_id from orphan_events where received_at < $1 order by received_at limit $2);
