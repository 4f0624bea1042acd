-- Three roles for drover's database, none of which can log in: logins are made members of one of them.
--
--   drover_owner    owns the tables; for `drover migrate`
--   drover_runtime  what `drover serve` and the other commands need, and no more; with DROVER_MIGRATE_ON_START=false
--   drover_monitor  counts and times, no content; for KEDA, exporters, dashboards
--
-- Run it in drover's database before the first `drover migrate`, and again after every one that applied something: by a
-- superuser, or by the database's owner if he may create roles and is a member of drover_owner. Safe to repeat.
--
--     psql -v ON_ERROR_STOP=1 -f roles.sql "postgresql://postgres@.../drover"
--     create role drover_migrator login password '...' in role drover_owner;
--     alter role drover_migrator set role drover_owner;                 -- so that drover_owner owns what it makes
--     create role drover_app login password '...' in role drover_runtime;
--     create role drover_keda login password '...' in role drover_monitor;

begin;

do $$
declare
    name text;
begin
    foreach name in array array['drover_owner', 'drover_runtime', 'drover_monitor'] loop
        if not exists (select from pg_roles where rolname = name) then
            execute format('create role %I nologin', name);
        end if;
        execute format('grant connect on database %I to %I', current_database(), name);
    end loop;
    -- Nobody else: neither a connection, nor tables or temporary tables of his own.
    execute format('revoke all on database %I from public', current_database());
    execute format('revoke create on schema %I from public', current_schema());
    execute format('grant usage, create on schema %I to drover_owner', current_schema());
    execute format('grant usage on schema %I to drover_runtime, drover_monitor', current_schema());
end
$$;

do $$
begin
    if to_regclass('schema_migrations') is null then
        raise notice 'There are no tables yet: run `drover migrate`, then this file again.';
        return;
    end if;

    revoke all on requests, outputs, outbox, unpublished, orphan_events, early_cancels, leadership, limits,
        schema_migrations from drover_runtime, drover_monitor;

    grant select on schema_migrations to drover_runtime;
    grant select, insert, update, delete on requests, unpublished to drover_runtime;
    grant select, insert, update on outputs, leadership, limits to drover_runtime;  -- outputs go with their requests
    grant select, insert, delete on outbox, orphan_events, early_cancels to drover_runtime;

    -- Named columns: neither input, metadata, results nor the bodies of events.
    grant select on leadership, limits, unpublished, schema_migrations to drover_monitor;
    grant select (
        request_id, arrival, state, source, model, num_generations, target_namespace, priority, deadline, received_at,
        attempts, attempted_at, claimed_by, claim_expires_at, next_attempt_at, submitted_at, finished_at, doubted_at,
        stop_cause, stop_requested_at
    ) on requests to drover_monitor;
    grant select (request_id, index, status, namespace, media_type, stored_at, ended_at, lost) on outputs
        to drover_monitor;
    grant select (row_id, request_id, sequence, stored, terminal, type, created_at) on outbox to drover_monitor;
end
$$;

commit;
