-- Limits that all replicas keep; and claims that never read what is not due.

create table limits (
    lane text primary key,
    tokens double precision not null default 'infinity', -- POSTs that may go at once, as of refilled_at; capped when read
    refilled_at timestamptz not null default clock_timestamp(),
    not_before timestamptz                               -- the hub has asked everybody to wait (Retry-After)
);

-- What may be claimed has no time of its own ('-infinity'); what waits for a time is apart, and is moved over when that
-- has come: however much is backed off, a claim does not read it.
-- claim: per source and namespace, by priority, then by age
create index requests_due on requests (source, coalesce(target_namespace, ''), priority desc, arrival)
    where state = 'accepted' and next_attempt_at = '-infinity';
-- promote
create index requests_backed_off on requests (next_attempt_at)
    where state = 'accepted' and next_attempt_at > '-infinity';
drop index requests_waiting;
