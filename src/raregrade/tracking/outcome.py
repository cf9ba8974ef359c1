"""How a whole pipeline ended, on the parent run of its steps.

The steps themselves keep the parent's status (see ``runs``); but a task that never got as far as opening its run
leaves no trace there. Whoever runs the pipeline knows better, and says it here.
"""

from __future__ import annotations

from raregrade.tracking.connection import as_user_error, connect, store_lock
from raregrade.tracking.runs import GROUP_TAG, PARENT_STEP, STEP_TAG, Tracking
from raregrade.tracking.values import tag_values

STATE_TAG = "raregrade.pipeline.state"
ERROR_TAG = "raregrade.pipeline.error"
_NOTE_TAG = "mlflow.note.content"


def report_outcome(tracking: Tracking, *, state: str, succeeded: bool, note: str, error: str = "") -> str | None:
    """Tag the parent run of ``tracking.group`` with ``state``, put ``note`` on top of its description, and end it.

    Args:
        tracking: where the steps logged.
        state: such as ``SUCCEEDED``, as the runner of the pipeline names it.
        succeeded: ends the parent as FINISHED, else as FAILED.
        note: one line of Markdown.
        error: what failed; empty after a success.

    Returns:
        The parent's run id; None with ``tracking.uri: none``, without a group, and where no step has logged anything.

    Raises:
        UserError: the store cannot be reached or refuses.
    """
    if not (tracking.enabled and tracking.group):
        return None
    connection = connect(tracking.uri, tracking.experiment)
    client = connection.client
    with store_lock(connection.uri, tracking.experiment), as_user_error(connection.uri):
        found = client.search_runs(
            [connection.experiment_id],
            f"tags.`{GROUP_TAG}` = '{tracking.group}' and tags.`{STEP_TAG}` = '{PARENT_STEP}'",
            max_results=1,
            order_by=["attributes.start_time ASC"],
        )
        if not found:
            return None
        parent = found[0]
        before = parent.data.tags.get(_NOTE_TAG, "")
        tags = {STATE_TAG: state, _NOTE_TAG: f"{note}\n\n{before}".strip()} | ({ERROR_TAG: error} if error else {})
        for key, value in tag_values(tags).items():
            client.set_tag(parent.info.run_id, key, value)
        client.set_terminated(parent.info.run_id, "FINISHED" if succeeded else "FAILED")
        return str(parent.info.run_id)
