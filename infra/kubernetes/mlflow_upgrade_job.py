"""Turn MLflow's StatefulSet into a Job that brings MLflow's tables to the version of its image.

    kubectl -n raregrade get statefulset mlflow --output json | python infra/kubernetes/mlflow_upgrade_job.py

Image, account, variables, secrets and volumes are those of the StatefulSet, so the Job reaches the same database.
"""

from __future__ import annotations

import json
import sys
from typing import Any

# Not `mlflow`: the service would send requests to the Job. The policies of the database know this name as well.
NAME = "mlflow-upgrade"
_ONLY_FOR_A_SERVER = ("args", "ports", "startupProbe", "readinessProbe", "livenessProbe")


def upgrade_job(statefulset: dict[str, Any]) -> dict[str, Any]:
    """The Job, in the namespace of ``statefulset``."""
    pod = dict(statefulset["spec"]["template"]["spec"])
    (server,) = pod["containers"]
    container = {key: value for key, value in server.items() if key not in _ONLY_FOR_A_SERVER}
    container["command"] = ["mlflow", "db", "upgrade", "postgresql+psycopg2:///mlflow"]
    pod |= {"containers": [container], "restartPolicy": "Never"}
    pod.pop("topologySpreadConstraints", None)
    labels = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/part-of": "raregrade"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": NAME, "namespace": statefulset["metadata"]["namespace"], "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 3600,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


if __name__ == "__main__":
    json.dump(upgrade_job(json.load(sys.stdin)), sys.stdout, indent=2)
