-- The session settings of the service, for connections that PgBouncer shares.
-- Run once, as the role itself or its owner: psql --file=role.sql userapi

ALTER ROLE userapi IN DATABASE userapi SET statement_timeout = '3s';
ALTER ROLE userapi IN DATABASE userapi SET lock_timeout = '3s';
ALTER ROLE userapi IN DATABASE userapi SET idle_in_transaction_session_timeout = '30s';
ALTER ROLE userapi IN DATABASE userapi SET timezone = 'UTC';
