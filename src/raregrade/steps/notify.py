"""Step ``notify``: how a run of a pipeline ended, on its MLflow parent run and to whoever listens at a webhook."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from raregrade.errors import UserError
from raregrade.tracking import Tracking

# The address of a webhook is often its password, so both come from the environment, never from an argument.
WEBHOOK_VARIABLE = "RAREGRADE_WEBHOOK_URL"
SECRET_VARIABLE = "RAREGRADE_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
SIGNATURE_HEADER = "X-Raregrade-Signature"
SUCCEEDED, FAILED, CANCELLED, UNFINISHED = "SUCCEEDED", "FAILED", "CANCELLED", "UNFINISHED"
# Backends have words of their own: kfp documents the first of each line, a backend 2.17.0 says COMPLETE after success,
# and RUNNING of a run that was terminated or in which a task could not start.
_STATES = {
    SUCCEEDED: ("SUCCEEDED", "SUCCESS", "COMPLETE", "COMPLETED", "CACHED"),
    FAILED: ("FAILED", "FAILURE", "ERROR"),
    CANCELLED: ("CANCELLED", "CANCELED", "CANCELLING", "CANCELING", "TERMINATED"),
    UNFINISHED: ("RUNNING", "PENDING", "NEW", "PAUSED"),
}
_STATE_OF = {word: state for state, words in _STATES.items() for word in words}
_ATTEMPTS = 3
_TIMEOUT_SECONDS = 10.0
_PAUSE_SECONDS = 2.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        pipeline: name of the pipeline.
        run: id of the run.
        said: the state as whoever runs the pipeline names it, in any case, such as ``COMPLETE``.
        error: what failed; empty after a success.
    """

    pipeline: str
    run: str
    said: str
    error: str = ""

    @property
    def state(self) -> str:
        """``SUCCEEDED``, ``FAILED``, ``CANCELLED`` or ``UNFINISHED``; a word that none of them has, as it was said."""
        word = self.said.strip().upper()
        return _STATE_OF.get(word, word or "UNKNOWN")

    @property
    def sentence(self) -> str:
        """Such as ``compare_losses failed: task train-model …``."""
        what = {
            SUCCEEDED: "succeeded",
            FAILED: "failed",
            CANCELLED: "was cancelled",
            UNFINISHED: f"did not finish, its state is {self.said}: it was terminated, or a task could not start",
        }
        text = f"{self.pipeline} {what.get(self.state, f'ended as {self.state}')}"
        return f"{text}: {self.error}" if self.error else text


def notify(outcome: Outcome, *, tracking: Tracking) -> dict[str, Any]:
    """Report ``outcome`` to MLflow and, where ``RAREGRADE_WEBHOOK_URL`` is set, by an HTTP POST of JSON.

    The body holds ``text`` (a sentence; chat services show it), ``pipeline``, ``run``, ``state``, ``error``,
    ``experiment`` and ``mlflow_run_id``. With ``RAREGRADE_WEBHOOK_SECRET`` the header ``X-Raregrade-Signature`` is
    ``sha256=`` and the hex HMAC-SHA256 of the body.

    A report that does not arrive is a warning: the run has ended as it has ended, and failing here would hide why.

    Returns:
        ``sentence``, ``mlflow_run_id`` (None where nothing was logged) and ``delivered`` (None without a webhook).
    """
    from raregrade.tracking.outcome import report_outcome

    succeeded = outcome.state == SUCCEEDED
    run_id = None
    try:
        run_id = report_outcome(
            tracking,
            state=outcome.state,
            succeeded=succeeded,
            note=f"**{outcome.sentence}**",
            error=outcome.error,
        )
    except UserError as err:
        _logger.warning("MLflow was not told how the run ended: %s", err)
    body = {"text": outcome.sentence, "pipeline": outcome.pipeline, "run": outcome.run, "state": outcome.state}
    body |= {"error": outcome.error, "experiment": tracking.experiment, "mlflow_run_id": run_id or ""}
    url = os.environ.get(WEBHOOK_VARIABLE, "").strip()
    delivered = _post(url, json.dumps(body).encode()) if url else None
    return {"sentence": outcome.sentence, "mlflow_run_id": run_id, "delivered": delivered}


def _post(url: str, body: bytes) -> bool:
    """POST ``body``, again where the server is away or overloaded; whether it arrived. Never logs ``url``."""
    headers = {"Content-Type": "application/json"}
    secret = os.environ.get(SECRET_VARIABLE, "")
    if secret:
        headers[SIGNATURE_HEADER] = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    problem = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        try:
            if not url.lower().startswith(("http://", "https://")):
                raise ValueError("it is not an http or https URL")
            request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):  # noqa: S310 - checked above
                return True
        except urllib.error.HTTPError as err:
            problem = f"HTTP {err.code} {err.reason}"
            if err.code < 500 and err.code != 429:
                break
        except ValueError as err:
            problem = str(err)
            break
        except OSError as err:
            problem = str(getattr(err, "reason", err))
    _logger.warning("the webhook of %s was not told how the run ended: %s", WEBHOOK_VARIABLE, problem)
    return False
