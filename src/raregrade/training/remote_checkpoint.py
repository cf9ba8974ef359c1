"""Checkpoints in S3 or any server that speaks its protocol, for machines whose disks do not outlive them.

Credentials and endpoint are those of boto3: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``
(or ``AWS_ENDPOINT_URL_S3``), ``AWS_PROFILE``, or the role of the machine. An upload appears under its name as a whole
or not at all, so nothing is ever half-written.

S3 knows no lock. Two processes that train the very same run at the same time write the very same states under the
same names, so neither can harm the other: a pod that Kubernetes believes dead may go on beside its successor. What
the first to finish removes, the other only loses as a place to resume from.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import IO, Any
from urllib.parse import urlsplit

from raregrade.errors import UserError
from raregrade.training.checkpoint import numbers_of, state_name
from raregrade.training.state_file import write_state

_PROBE = "writable"


class S3Store:
    """The checkpoints of one run in ``bucket``, below ``prefix``."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = prefix

    @classmethod
    def connect(cls, address: str, key: str) -> S3Store:
        """The store of run ``key`` below ``address``, found to be readable and writable.

        Raises:
            UserError: boto3 is missing, or the server cannot be reached or refuses.
        """
        bucket, prefix = _bucket_and_prefix(address)
        try:
            import boto3  # type: ignore[import-untyped] # noqa: PLC0415 - takes half a second
            from botocore.config import Config  # type: ignore[import-untyped] # noqa: PLC0415
        except ImportError as err:
            raise UserError(
                f"checkpoints in {address} need boto3: `pip install 'raregrade[tracking]'`, or give a folder."
            ) from err
        settings = Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"total_max_attempts": 3, "mode": "standard"},
            # Servers other than Amazon's know no checksums beyond the old ones; ours is in the file.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        place = f"s3://{bucket}/{prefix}{key}"
        try:
            store = cls(boto3.session.Session().client("s3", config=settings), bucket, f"{prefix}{key}/")
            store.numbers()
            store.client.put_object(Bucket=bucket, Key=f"{store.prefix}{_PROBE}", Body=b"")
            store.client.delete_object(Bucket=bucket, Key=f"{store.prefix}{_PROBE}")
        except Exception as err:
            raise UserError(
                f"checkpoints cannot be kept in {place}: {str(err).rstrip('.')}. "
                "Check the address, AWS_ENDPOINT_URL and the credentials, or give a folder."
            ) from err
        return store

    @property
    def place(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def numbers(self) -> list[int]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        return numbers_of(item["Key"].removeprefix(self.prefix) for page in pages for item in page.get("Contents", []))

    def read(self, number: int) -> IO[bytes]:
        """A copy in a file without a name, which is gone when it is closed."""
        return _filled(lambda file: self.client.download_fileobj(self.bucket, self._key(number), file))

    def write(self, number: int, state: dict[str, Any]) -> None:
        with _filled(lambda file: write_state(state, file)) as file:
            self.client.upload_fileobj(file, self.bucket, self._key(number))

    def remove(self, number: int) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self._key(number))

    def check_space(self, need: int) -> None:
        """A bucket has no end."""

    def _key(self, number: int) -> str:
        return self.prefix + state_name(number)


def _filled(fill: Callable[[IO[bytes]], object]) -> IO[bytes]:
    """A file without a name, gone when it is closed, after ``fill`` wrote to it; to be read from its start."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        fill(file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _bucket_and_prefix(address: str) -> tuple[str, str]:
    """``s3://bucket/some/prefix`` as bucket and ``some/prefix/``; the prefix may be empty."""
    parts = urlsplit(address.replace("s3:/", "s3://", 1) if not address.startswith("s3://") else address)
    if not parts.netloc:
        raise UserError(f"{address}: expected s3://bucket/prefix")
    prefix = parts.path.strip("/")
    return parts.netloc, f"{prefix}/" if prefix else ""
