"""What can be known of ``--runner docker`` without an engine: mounts, settings, and who does not answer."""

import os
import socket
import subprocess

import pytest
from kfp import dsl

from raregrade.cli.main import run
from raregrade.errors import UserError
from raregrade.kubeflow.local_docker import (
    at_absolute_paths,
    container_settings,
    find_engine,
    in_place_of_the_shell,
    mounts_of,
)


def test_the_folders_of_a_run_are_mounted_and_the_raw_data_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw, store = tmp_path / "raw", tmp_path / "deep" / "store"
    raw.mkdir()
    arguments = {
        "runs": [{"loss": "ce"}],
        "raw_data": str(raw),
        "data_revision": "0123.dir",
        "store": str(store),
        "tracking_uri": "sqlite:///mlflow.db",
        "experiment": "raregrade",
    }
    assert mounts_of(arguments) == {str(raw): "ro", str(store): "rw", str(tmp_path): "rw"}
    assert store.is_dir()


@pytest.mark.parametrize(
    ("url", "there"),
    [("study/journal.log", "{}/study/journal.log"), ("sqlite:///study/s.db", "sqlite:///{}/study/s.db")],
)
def test_the_study_that_workers_share_is_a_file_that_all_of_them_see(tmp_path, monkeypatch, url, there):
    monkeypatch.chdir(tmp_path)
    arguments = at_absolute_paths({"storage": {"url": url, "heartbeat": 60}, "tracking_uri": "none"})
    assert arguments["storage"] == {"url": there.format(tmp_path), "heartbeat": 60}
    assert mounts_of(arguments) == {str(tmp_path / "study"): "rw"}


def test_a_study_in_a_database_server_needs_no_mount():
    arguments = {"storage": {"url": "postgresql://u@db/optuna"}}
    assert at_absolute_paths(arguments) == arguments
    assert mounts_of(arguments) == {}


@pytest.mark.parametrize("uri", ["none", "http://127.0.0.1:5000", "postgresql://u@db/mlflow", ""])
def test_a_server_needs_no_mount(uri):
    assert mounts_of({"tracking_uri": uri, "store": ""}) == {}


def test_raw_data_that_are_not_there_are_refused_and_not_made(tmp_path):
    with pytest.raises(UserError, match="no raw data at"):
        mounts_of({"raw_data": str(tmp_path / "raw")})
    assert not (tmp_path / "raw").exists()


def test_a_container_runs_as_the_one_who_started_it():
    settings = container_settings({"SecurityOptions": ["name=seccomp,profile=default"], "Runtimes": {"runc": {}}})
    assert settings["user"] == f"{os.getuid()}:{os.getgid()}"
    assert (settings["read_only"], settings["cap_drop"]) == (True, ["ALL"])
    assert "device_requests" not in settings


def test_an_engine_without_root_maps_root_to_the_one_who_started_it():
    assert container_settings({"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]})["user"] == "0:0"


def test_gpus_are_asked_for_where_the_engine_has_a_runtime_for_them():
    (request,) = container_settings({"Runtimes": {"runc": {}, "nvidia": {}}})["device_requests"]
    assert (request["Count"], request["Capabilities"]) == (-1, [["gpu"]])


def test_on_selinux_folders_are_not_labelled_anew():
    assert "label=disable" in container_settings({"SecurityOptions": ["name=selinux"]})["security_opt"]


@dsl.component(base_image="localhost/throwaway:1", install_kfp_package=False)
def component(x: str) -> None:
    pass


def test_signals_reach_the_python_of_a_task_and_not_the_shell_around_it():
    container = component.component_spec.implementation.container
    command = in_place_of_the_shell([*container.command, *container.args])
    assert sum("_KFP_RUNTIME=true exec python3 -m kfp.dsl.executor_main" in part for part in command) == 1


def test_the_variable_that_kfp_sets_survives_the_change():
    done = subprocess.run(
        [
            "sh",
            "-ec",
            in_place_of_the_shell(["_KFP_RUNTIME=true python3 -m platform"])[0].replace("python3 -m platform", "env"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_KFP_RUNTIME=true" in done.stdout.splitlines()


def test_nobody_at_docker_host_is_named(monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX) as silent:
        path = tmp_path / "s.sock"
        silent.bind(str(path))  # bound and not listening: refused at once
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        with pytest.raises(UserError, match=f"nobody answers at DOCKER_HOST=unix://{path}.*podman system service"):
            find_engine()


def test_an_image_is_not_for_processes(workplace, capsys):
    assert run(["pipeline", "run", "compare_losses", "--image", "localhost/raregrade:1"]) == 2
    assert "add --runner docker" in capsys.readouterr().err
    assert not (workplace / ".raregrade").exists()
