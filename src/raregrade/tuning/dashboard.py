"""optuna-dashboard on the storage that the parameters name, whatever its kind."""

from __future__ import annotations

import importlib.util
import signal

from raregrade.config import StudyStorage
from raregrade.errors import UserError
from raregrade.tuning import require_optuna


def serve(storage: StudyStorage, *, host: str, port: int) -> None:
    """Serve the studies in ``storage`` on ``http://host:port`` until the process is interrupted.

    Raises:
        UserError: the dashboard is not installed, the storage cannot be opened, or the port is taken.
    """
    require_optuna()
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise UserError("the dashboard is not installed. Run `pip install 'raregrade[tuning]'`.")
    from optuna_dashboard import run_server  # noqa: PLC0415

    from raregrade.tuning.storage import open_storage  # noqa: PLC0415

    shared = open_storage(storage)
    # wsgiref swallows what a handler raises while it answers, KeyboardInterrupt too, and there is nothing to save.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    print(f"Studies in {shared.name}: http://{host}:{port}/ (Ctrl-C stops the server)", flush=True)
    try:
        run_server(shared.storage, host=host, port=port)
    except OSError as err:
        raise UserError(f"cannot serve on {host}:{port}: {err.strerror}. Give another --port.") from err
