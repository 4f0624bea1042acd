-- name: server_state
-- What `drover doctor` wants to know of the server, of the user, and of the schema.
select
    current_setting('server_version_num')::integer as version,
    current_setting('server_version') as version_told,
    pg_is_in_recovery() as standby,
    current_setting('transaction_read_only')::boolean as read_only,
    current_setting('fsync')::boolean as fsync,
    current_setting('synchronous_commit') as synchronous_commit,
    clock_timestamp() as now,
    current_user::text as account,
    current_database()::text as database,
    current_schema()::text as schema,
    coalesce(has_schema_privilege(current_schema(), 'create'), false) as may_create,
    to_regclass('schema_migrations') is not null as has_migrations;

-- name: backend
-- The server's process: a session keeps it for life, unless a pooler stands between.
select pg_backend_pid();

-- name: session_settings
-- The settings $1 of this session, as far as there are such.
select name, current_setting(name, true) as value from unnest($1::text[]) as name;

-- name: applied_migrations
select version, name, checksum from schema_migrations order by version;

-- name: missing_privileges
-- Which of the privileges $2 on the tables $1, pair by pair, this user lacks, as far as the tables are there.
select n.name, n.privilege
from unnest($1::text[], $2::text[]) with ordinality as n (name, privilege, place)
where to_regclass(n.name) is not null and not has_table_privilege(to_regclass(n.name), n.privilege)
order by n.place;

-- name: present_lease
-- Who leads a lane, and for how long by the database's clock.
select holder, term, extract(epoch from expires_at - clock_timestamp())::float8 as left_s, stream_opened_at
from leadership
where lane = $1 and expires_at > '-infinity';
