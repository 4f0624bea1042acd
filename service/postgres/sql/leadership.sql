-- name: take_lease
-- Takes or renews the lease; the term rises when the hands change. No row: somebody else holds it.
insert into leadership as l (lane, holder, term, expires_at)
values ($1, $2, 1, coalesce($4::timestamptz, clock_timestamp()) + make_interval(secs => $3))
on conflict (lane) do update
set holder = excluded.holder,
    term = case when l.holder = excluded.holder then l.term else l.term + 1 end,
    expires_at = excluded.expires_at,
    stream_opened_at = case when l.holder = excluded.holder then l.stream_opened_at end
where l.holder = excluded.holder or l.expires_at <= coalesce($4::timestamptz, clock_timestamp())
returning term;

-- name: give_back_lease
-- Lets the next replica in at once, and tells it.
with given_back as (
    update leadership set expires_at = '-infinity', stream_opened_at = null where lane = $1 and holder = $2
    returning lane
)
select pg_notify($3, lane) from given_back;

-- name: note_stream_opened
-- From when on completions are heard; null while they are not.
update leadership set stream_opened_at = $3 where lane = $1 and holder = $2 and term = $4;
