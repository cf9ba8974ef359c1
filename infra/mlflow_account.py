"""Make an account in MLflow, or give one a new password.

    python infra/mlflow_account.py NAME < PASSWORD_FILE

Reads the password from standard input, and MLFLOW_TRACKING_URI with an administrator's MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD from the environment. Needs Python and nothing else.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.error
import urllib.request


def call(method: str, path: str, body: dict[str, str]) -> None:
    """Ask the server's REST API as the administrator; raises HTTPError for what it refuses."""
    user, password = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310 - the administrator's own server
        f"{os.environ['MLFLOW_TRACKING_URI'].rstrip('/')}/api/2.0/mlflow/users/{path}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass


def main() -> int:
    """Exit code: 0 done, 1 the server refused, 2 something is missing."""
    missing = [
        name
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        if not os.environ.get(name)
    ]
    if len(sys.argv) != 2 or missing:
        print(f"{(__doc__ or '').strip()}\nMissing: {', '.join(missing) or 'NAME'}", file=sys.stderr)
        return 2
    account = {"username": sys.argv[1], "password": sys.stdin.read().rstrip("\n")}
    try:
        call("POST", "create", account)
    except urllib.error.HTTPError as err:
        answer = err.read().decode(errors="replace")
        if "RESOURCE_ALREADY_EXISTS" not in answer:
            print(f"MLflow refused: {err.code} {answer}", file=sys.stderr)
            return 1
    except OSError as err:
        print(f"no MLflow server answers at {os.environ['MLFLOW_TRACKING_URI']}: {err}", file=sys.stderr)
        return 1
    else:
        print(f"made the account {account['username']}")
        return 0
    try:
        call("PATCH", "update-password", account)
    except urllib.error.HTTPError as err:
        print(f"MLflow refused: {err.code} {err.read().decode(errors='replace')}", file=sys.stderr)
        return 1
    print(f"gave the account {account['username']} a new password")
    return 0


if __name__ == "__main__":
    sys.exit(main())
