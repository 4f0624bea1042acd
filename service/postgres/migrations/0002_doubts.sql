-- Doubts: when they arose, how often the hub was looked through for them; outputs that were never found.

alter table requests
    add column doubted_at timestamptz,
    add column doubt_looks smallint not null default 0;

-- doubts
create index requests_in_doubt on requests (doubted_at) where state = 'in_doubt';

-- Content without a mark of ours may be submitted, or in doubt, once at a time: so that no request adopts what another
-- has bought.
create unique index requests_unmarked on requests (content_hash)
    where state in ('submitting', 'in_doubt') and not seed_chosen;

-- An output that the hub never showed has no id; code of the version before finds outputs by generation_id as ever.
alter table outputs drop constraint outputs_pkey;
alter table outputs alter column generation_id drop not null;
alter table outputs add primary key (request_id, index);
create unique index outputs_generation on outputs (generation_id);
drop index outputs_of_request;
