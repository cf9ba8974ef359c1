"""The servers that other tests start: that they are there, and gone afterwards."""

from __future__ import annotations

import socket
from pathlib import Path

import boto3
import psycopg2
import pytest
from botocore.exceptions import ClientError

from tests.servers import postgres_server, s3_server


def test_postgres_takes_its_password_only_and_is_gone_afterwards() -> None:
    with postgres_server() as postgres:
        url = postgres.create_database("studies")
        assert postgres.execute("SELECT current_database()", "studies") == [("studies",)]
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(url.replace(postgres.password, "wrong"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", postgres.port), timeout=2)


def test_two_postgres_servers_run_beside_each_other() -> None:
    with postgres_server() as one, postgres_server() as other:
        one.create_database("studies")
        assert other.execute("SELECT datname FROM pg_database WHERE datname = 'studies'") == []


def test_the_s3_server_keeps_files_and_refuses_another_key(tmp_path: Path) -> None:
    with s3_server(tmp_path) as s3:
        s3.create_bucket("mlflow")
        keys = {"aws_access_key_id": s3.access_key, "region_name": "us-east-1", "endpoint_url": s3.endpoint}
        boto3.client("s3", aws_secret_access_key=s3.secret_key, **keys).put_object(Bucket="mlflow", Key="a", Body=b"1")
        assert (s3.folder / "mlflow" / "a").read_bytes() == b"1"
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            boto3.client("s3", aws_secret_access_key="wrong", **keys).get_object(Bucket="mlflow", Key="a")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(s3.endpoint.rpartition(":")[2])), timeout=2)
