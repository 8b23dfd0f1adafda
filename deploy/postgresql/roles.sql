-- Two roles in addition to the administrator's, so that the service can change rows, but neither tables nor the
-- triggers that protect the audit log:
--
--   userapi_owner   owns database, tables and triggers; only `flask db upgrade` uses it
--   userapi         reads and writes rows: service, worker, commands
--
-- As an administrator, in the database of the service, with psql 14 or newer; it can be repeated, and
-- transfers the objects of other roles:
--
--   OWNER_PASSWORD=… SERVICE_PASSWORD=… psql --set=ON_ERROR_STOP=1 --file=roles.sql userapi

\getenv owner_password OWNER_PASSWORD
\getenv service_password SERVICE_PASSWORD

SELECT format('CREATE ROLE %I', name)
FROM (VALUES ('userapi_owner'), ('userapi')) AS wanted (name)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

ALTER ROLE userapi_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS NOREPLICATION
    PASSWORD :'owner_password';
ALTER ROLE userapi LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS NOREPLICATION
    PASSWORD :'service_password';

-- An administrator who is not a superuser must be a member of a role to transfer objects to it.
SELECT format('GRANT userapi_owner TO %I', current_user)
WHERE NOT pg_has_role(current_user, 'userapi_owner', 'MEMBER') \gexec

SELECT format('ALTER DATABASE %I OWNER TO userapi_owner', current_database()),
    'ALTER SCHEMA public OWNER TO userapi_owner',
    format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()),
    format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO userapi', current_database()) \gexec

CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- Objects of other roles in an existing installation, except those of extensions.
SELECT format('ALTER TABLE %s OWNER TO userapi_owner', c.oid::regclass)
FROM pg_class c
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
    AND relowner <> 'userapi_owner'::regrole \gexec
SELECT format('ALTER ROUTINE %s OWNER TO userapi_owner', p.oid::regprocedure)
FROM pg_proc p
WHERE pronamespace = 'public'::regnamespace AND proowner <> 'userapi_owner'::regrole
    AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e') \gexec

REVOKE CREATE ON SCHEMA public FROM PUBLIC, userapi;
GRANT USAGE ON SCHEMA public TO userapi;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO userapi;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO userapi;
ALTER DEFAULT PRIVILEGES FOR ROLE userapi_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO userapi;
ALTER DEFAULT PRIVILEGES FOR ROLE userapi_owner IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO userapi;
