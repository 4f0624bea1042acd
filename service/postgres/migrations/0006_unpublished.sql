-- What is still to be published stands in a table of its own: to mark an event is to delete a small row. In the outbox
-- it was an update that copied the event with its body and wrote three indexes, a fifth of what a request cost Postgres.
--
-- The one migration that the version before it cannot live with: no version before it was released. Stop every replica
-- first; those of a version before would fail on each statement about events.

create table unpublished (
    row_id bigint primary key,                        -- of the outbox
    request_id text not null,
    sequence integer not null,
    stored boolean not null,
    failures integer not null default 0,
    next_attempt_at timestamptz not null default '-infinity'
);
-- due_events: what has failed, and nothing else, has a time of its own
create index unpublished_backed_off on unpublished (request_id, sequence) where next_attempt_at > '-infinity';
-- All that is ever in it goes within seconds: its dead rows are worth a vacuum long before a share of it is dead.
alter table unpublished set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

insert into unpublished (row_id, request_id, sequence, stored, failures, next_attempt_at)
select row_id, request_id, sequence, stored, failures, next_attempt_at from outbox where published_at is null;

alter table outbox add column created_at timestamptz;
update outbox set created_at = coalesce(published_at, now());
alter table outbox
    alter column created_at set not null,
    drop column failures,
    drop column next_attempt_at,
    drop column published_at,                         -- its indexes go with it
    reset (fillfactor);
-- delete_old_answers
create index outbox_answers on outbox (created_at) where not stored or repeated;
