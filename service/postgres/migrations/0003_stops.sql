-- Stops: requests that are to end before their outputs do; cancels that came before their request; lost generations.

create type stop_cause as enum ('cancel', 'deadline');

alter table requests
    add column stop_cause stop_cause,
    add column stop_requested_at timestamptz;

-- overdue
create index requests_deadline on requests (deadline) where finished_at is null and stop_cause is null;
-- stopping
create index requests_cancelling on requests (next_attempt_at) where state = 'cancelling';

alter table outputs
    add column missing_since timestamptz,             -- since when the hub answers that it does not know it
    add column lost boolean not null default false;   -- given up

create table early_cancels (
    request_id text primary key,
    received_at timestamptz not null
);
-- delete_old_cancels
create index early_cancels_age on early_cancels (received_at);

update outputs set lost = true where generation_id is null;
