"""Reading the registry: what is registered under which name, version and alias, and fetching its files.

Nothing here changes the registry. Whatever does not exist is a ``RegistryError`` that names what does.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raregrade.errors import RegistryError
from raregrade.tracking import Tracking
from raregrade.tracking.connection import as_user_error, open_client

CHAMPION = "champion"
CHALLENGER = "challenger"
# Tags of a version: enough to find its data and code, and to apply the gate to it again.
WEIGHTS_TAG = "raregrade.weights_sha256"
DATASET_TAG = "raregrade.dataset.content_hash"
DECISION_TAG = "raregrade.decision"  # JSON of the decision rule: the same weights decided otherwise grade otherwise
REASONS_TAG = "raregrade.gate.reasons"
RECORD_TAG = "raregrade.record"  # JSON for the gate: metrics, rules, baseline, alarms
# The model folder within the artifacts of the MLflow model.
MODEL_ARTIFACT = "artifacts/model"
_URI = re.compile(r"models:/(?P<name>[^/@:]+)(?:/(?P<version>\d+)|@(?P<alias>[\w-]+))")


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a registered model, with the aliases that point to it."""

    name: str
    version: str
    aliases: tuple[str, ...]
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """The ``val_*`` and ``test_*`` metrics recorded when it was registered."""
        return {name: float(value) for name, value in self.record.get("metrics", {}).items()}

    @property
    def record(self) -> dict[str, Any]:
        """What the gate needs to judge it again; empty for a version that raregrade did not register."""
        record: dict[str, Any] = json.loads(self.tags.get(RECORD_TAG, "{}"))
        return record


def list_models(name: str | None, tracking: Tracking) -> list[RegisteredVersion]:
    """All versions of model ``name``, or of every model; newest first within a name.

    Raises:
        RegistryError: no model of that name.
        UserError: the registry cannot be reached.
    """
    client = open_client(tracking.uri)
    with as_user_error(tracking.uri):
        return [v for n in ([name] if name is not None else model_names(client)) for v in versions_of(client, n)]


def fetch_model(uri: str, tracking: Tracking, destination: Path) -> Path:
    """The model folder of ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``, downloaded below ``destination``.

    Raises:
        RegistryError: not such a URI, or it names something that does not exist.
        UserError: the registry cannot be reached.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise RegistryError(f"{uri!r}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    client = open_client(tracking.uri)
    with as_user_error(tracking.uri):
        name, alias = match["name"], match["alias"]
        found = version_by_alias(client, name, alias) if alias else version_of(client, name, match["version"])
        return download(client, found, MODEL_ARTIFACT, destination)


def download(client: Any, version: RegisteredVersion, part: str, destination: Path) -> Path:
    """Download ``part`` of a version's files (empty: all of them) below ``destination``.

    What ``models:/NAME/VERSION`` means, asked of ``client``: MLflow's own look-up of such a URI goes to the
    global tracking URI, whatever else it is given.
    """
    from mlflow.artifacts import download_artifacts

    destination.mkdir(parents=True, exist_ok=True)
    root = client.get_model_version_download_uri(version.name, version.version)
    path = download_artifacts(
        artifact_uri=f"{root}/{part}".rstrip("/"), dst_path=str(destination), tracking_uri=client.tracking_uri
    )
    return Path(path)


def model_names(client: Any) -> list[str]:
    """Names of all registered models."""
    names: list[str] = []
    token = None
    while True:
        page = client.search_registered_models(max_results=100, page_token=token)
        names += [model.name for model in page]
        token = page.token
        if not token:
            return sorted(names)


def versions_of(client: Any, name: str) -> list[RegisteredVersion]:
    """Versions of model ``name``, newest first. Raises RegistryError where there is no such model."""
    aliases = aliases_of(client, name)
    found: list[RegisteredVersion] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = {quoted(name)}", max_results=200, page_token=token)
        found += [_as_version(entry, aliases) for entry in page]
        token = page.token
        if not token:
            return sorted(found, key=lambda v: -int(v.version))


def exists(client: Any, name: str) -> bool:
    """Is any model registered under ``name``?"""
    return bool(client.search_registered_models(f"name = {quoted(name)}"))


def aliases_of(client: Any, name: str) -> dict[str, str]:
    """Alias to version of model ``name``. Raises RegistryError where there is no such model."""
    return {alias: str(version) for alias, version in registered_model(client, name).aliases.items()}


def registered_model(client: Any, name: str) -> Any:
    """MLflow's entity of model ``name``. Raises RegistryError, naming what there is."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as err:
        if err.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = ", ".join(model_names(client)) or "none; `raregrade register` adds one"
        raise RegistryError(f"no registered model is named {name!r}; registered: {known}") from err


def version_of(client: Any, name: str, version: str) -> RegisteredVersion:
    """Version ``version`` of model ``name``. Raises RegistryError, naming the versions there are."""
    known = versions_of(client, name)
    for entry in known:
        if entry.version == str(version):
            return entry
    numbers = ", ".join(entry.version for entry in reversed(known)) or "none"
    raise RegistryError(f"{name} has no version {version}; versions: {numbers}")


def version_by_alias(client: Any, name: str, alias: str) -> RegisteredVersion:
    """The version that ``alias`` points to. Raises RegistryError, naming the aliases there are."""
    aliases = aliases_of(client, name)
    if alias not in aliases:
        known = ", ".join(f"{a} (version {v})" for a, v in sorted(aliases.items())) or "none"
        raise RegistryError(f"{name} has no alias {alias!r}; aliases: {known}. `raregrade promote` sets one.")
    return version_of(client, name, aliases[alias])


def quoted(name: str) -> str:
    """``name`` as a literal of MLflow's search language, which has no escape for quotes."""
    return f'"{name}"' if "'" in name else f"'{name}'"


def _as_version(entry: Any, aliases: dict[str, str]) -> RegisteredVersion:
    version = str(entry.version)
    own = tuple(sorted(alias for alias, target in aliases.items() if target == version))
    return RegisteredVersion(entry.name, version, own, dict(entry.tags))
