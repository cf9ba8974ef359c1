#!/bin/bash
# Makes the accounts and databases of MLflow and Optuna, each account its own and no other's; run again, it sets the
# passwords anew. Reads MLFLOW_DB_PASSWORD and OPTUNA_DB_PASSWORD. The postgres image runs it on an empty volume;
# for a Postgres of your own, set PGHOST, PGUSER and PGPASSWORD of an account that may create roles and databases.
set -euo pipefail

: "${MLFLOW_DB_PASSWORD:?}" "${OPTUNA_DB_PASSWORD:?}"

# psql sends no variables with --command, and a password on a command line would be seen in the list of processes.
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "${PGUSER:-${POSTGRES_USER:-postgres}}" --dbname postgres <<'SQL'
\getenv mlflow_password MLFLOW_DB_PASSWORD
\getenv optuna_password OPTUNA_DB_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY['mlflow', 'optuna']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE mlflow PASSWORD :'mlflow_password';
ALTER ROLE optuna PASSWORD :'optuna_password';
-- Outside of the cluster's superuser, only a member of a role may give it a database.
SELECT format('GRANT %I TO CURRENT_USER', name)
FROM unnest(ARRAY['mlflow', 'optuna']) AS name
WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = CURRENT_USER) \gexec

SELECT format('CREATE DATABASE %I OWNER %I', name, owner)
FROM (VALUES ('mlflow', 'mlflow'), ('mlflow_auth', 'mlflow'), ('optuna', 'optuna')) AS wanted (name, owner)
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec
REVOKE CONNECT, TEMPORARY ON DATABASE mlflow, mlflow_auth, optuna FROM PUBLIC;
SQL
