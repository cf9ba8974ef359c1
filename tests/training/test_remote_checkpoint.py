"""Checkpoints on a real S3 server, which may refuse, be missing, or go away in the middle of a training."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from raregrade.errors import UserError
from raregrade.training.checkpoint import open_checkpoint
from tests.servers import S3, free_port, listens, process


@contextmanager
def server(folder: Path, port: int, secret: str) -> Iterator[S3]:
    """An S3 server that comes back on the same port with the same buckets."""
    (folder / "buckets").mkdir(parents=True, exist_ok=True)
    s3 = S3(f"http://127.0.0.1:{port}", "raregrade-test", secret, folder / "buckets")
    command = [Path(sys.executable).with_name("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", f"{s3.access_key},{s3.secret_key}", "--config", folder / "rclone.conf", s3.folder]
    with process(command, ready=listens(port), log=folder / "s3.log"):
        yield s3


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with server(tmp_path, free_port(), secrets.token_hex(16)) as running:
        use(running, monkeypatch)
        running.create_bucket("team")
        yield running


def use(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)


def state_of(epoch: int) -> dict[str, object]:
    return {"epoch": epoch, "weights": torch.full((1000,), float(epoch))}


def test_a_run_finds_its_newest_state_again_and_leaves_nothing_when_it_is_done(s3: S3) -> None:
    with open_checkpoint("s3://team/some/prefix", "run") as checkpoint:
        assert checkpoint.place == "s3://team/some/prefix/run"
        assert checkpoint.load() is None
        for epoch in (1, 2, 3):
            assert checkpoint.save(state_of(epoch), wait=True), checkpoint.problem
    folder = s3.folder / "team" / "some" / "prefix" / "run"
    assert sorted(path.name for path in folder.iterdir()) == ["state-000002.pt", "state-000003.pt"]
    with open_checkpoint("s3://team/some/prefix", "run") as checkpoint:
        state = checkpoint.load()
        assert state is not None
        assert state["epoch"] == 3
        assert (state["weights"] == 3).all()
        checkpoint.remove()
        assert checkpoint.load() is None
    with open_checkpoint("s3://team", "other") as checkpoint:
        assert checkpoint.load() is None


def test_a_damaged_object_counts_as_none(s3: S3) -> None:
    with open_checkpoint("s3://team", "run") as checkpoint:
        for epoch in (1, 2):
            checkpoint.save(state_of(epoch), wait=True)
        path = s3.folder / "team" / "run" / "state-000002.pt"
        path.write_bytes(path.read_bytes()[:-100])
        state = checkpoint.load()
    assert state is not None
    assert state["epoch"] == 1


@pytest.mark.parametrize(
    ("address", "said"),
    [("s3://nowhere", "s3://nowhere/run"), ("s3:///x", "expected s3://bucket/prefix")],
)
def test_an_address_that_is_wrong_is_refused_before_training(s3: S3, address: str, said: str) -> None:
    with pytest.raises(UserError, match=said), open_checkpoint(address, "run"):
        pytest.fail("opened")


def test_wrong_keys_are_refused_before_training(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    advice = "Check the address, AWS_ENDPOINT_URL and the credentials"
    with pytest.raises(UserError, match=advice), open_checkpoint("s3://team", "run"):
        pytest.fail("opened")


def test_a_server_that_is_not_there_is_reported_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    use(S3(f"http://127.0.0.1:{free_port()}", "key", "secret", Path()), monkeypatch)
    with pytest.raises(UserError, match="Could not connect"), open_checkpoint("s3://team", "run"):
        pytest.fail("opened")


@pytest.mark.slow
def test_a_server_that_goes_away_costs_checkpoints_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, secret, said = free_port(), secrets.token_hex(16), list[str]()
    with server(tmp_path, port, secret) as s3:
        use(s3, monkeypatch)
        s3.create_bucket("team")
        opened = open_checkpoint("s3://team", "run", said.append)
        checkpoint = opened.__enter__()
        assert checkpoint.save(state_of(1), wait=True)
    assert not checkpoint.save(state_of(2), wait=True)
    assert len(said) == 1
    assert "could not be kept in s3://team/run" in said[0]
    with server(tmp_path, port, secret):
        assert checkpoint.save(state_of(3), wait=True)
        opened.__exit__(None, None, None)
        with open_checkpoint("s3://team", "run") as again:
            state = again.load()
    assert state is not None
    assert state["epoch"] == 3
    assert len(said) == 1
