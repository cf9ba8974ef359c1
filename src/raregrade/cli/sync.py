"""The command that sends to MLflow what could not be sent while a step ran."""

from __future__ import annotations

from raregrade.cli.options import ParamsOptions
from raregrade.errors import UserError


def sync(*, options: ParamsOptions) -> None:
    """Send MLflow what was kept while it did not answer.

    Every command that logs does so as well, before it starts.

    Example:
        raregrade sync
    """
    config = options.read_settings()
    from raregrade.tracking.spool import store_hash, waiting_runs

    waiting = waiting_runs().values()
    here = [about for about in waiting if about.store == store_hash(config.tracking.uri)]
    elsewhere = sorted({about.where for about in waiting} - {about.where for about in here})
    if here:
        _send(config.tracking.uri, config.tracking.experiment)
    else:
        print("nothing waits to be sent")
    for where in elsewhere:
        print(f"something waits for {where}: `raregrade sync --set tracking.uri={where}`")


def _send(uri: str, experiment: str) -> None:
    from raregrade.tracking.connection import connect
    from raregrade.tracking.delivery import send_waiting

    sent = send_waiting(connect(uri, experiment))
    print(f"complete in MLflow now: {', '.join(sent.complete) or 'no run'}")
    if sent.left:
        raise UserError(f"MLflow did not take all of {', '.join(sent.left)}: the lines above say why.")


COMMANDS = {"sync": sync}
