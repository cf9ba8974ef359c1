"""The script that makes MLflow's and Optuna's databases, on a real Postgres."""

from __future__ import annotations

import subprocess

import psycopg2
import pytest

from tests.infra.stack import CREATE_DATABASES, create_databases
from tests.servers import Postgres, postgres_server

PASSWORDS = {"MLFLOW_DB_PASSWORD": "it's $(one)", "OPTUNA_DB_PASSWORD": 'a "quoted" \\ one'}


def connect(postgres: Postgres, user: str, password: str, database: str) -> psycopg2.extensions.connection:
    return psycopg2.connect(
        host=postgres.host, port=postgres.port, user=user, password=password, dbname=database, connect_timeout=5
    )


def test_each_account_reaches_its_own_databases_alone() -> None:
    with postgres_server() as postgres:
        create_databases(postgres, PASSWORDS)
        mlflow, optuna = PASSWORDS.values()
        for user, password, database in (
            ("mlflow", mlflow, "mlflow"),
            ("mlflow", mlflow, "mlflow_auth"),
            ("optuna", optuna, "optuna"),
        ):
            connection = connect(postgres, user, password, database)
            connection.cursor().execute("CREATE TABLE mine (id int)")
            connection.close()
        for user, password, database in (("optuna", optuna, "mlflow"), ("mlflow", mlflow, "optuna")):
            with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
                connect(postgres, user, password, database)


def test_run_again_it_sets_the_passwords_anew_and_keeps_the_data() -> None:
    with postgres_server() as postgres:
        create_databases(postgres, PASSWORDS)
        postgres.execute("CREATE TABLE kept (id int)", "optuna")
        create_databases(postgres, PASSWORDS | {"OPTUNA_DB_PASSWORD": "new"})
        connect(postgres, "optuna", "new", "optuna").close()
        assert postgres.execute("SELECT count(*) FROM kept", "optuna") == [(0,)]
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            connect(postgres, "optuna", PASSWORDS["OPTUNA_DB_PASSWORD"], "optuna")


def test_an_administrator_who_is_no_superuser_may_run_it() -> None:
    """What one is given by a database of a cloud."""
    with postgres_server() as postgres:
        postgres.execute(f"CREATE ROLE administrator LOGIN CREATEROLE CREATEDB PASSWORD '{postgres.password}'")
        create_databases(postgres, PASSWORDS, user="administrator")
        connect(postgres, "mlflow", PASSWORDS["MLFLOW_DB_PASSWORD"], "mlflow_auth").close()


def test_without_a_password_it_makes_nothing() -> None:
    result = subprocess.run(
        [CREATE_DATABASES], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "MLFLOW_DB_PASSWORD" in result.stderr
