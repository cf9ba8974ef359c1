"""MLflow runs and the lineage of data and code.

``start_step`` opens a run; with ``Tracking(uri="none")`` nothing is logged and mlflow is never imported.
"""

from raregrade.tracking.lineage import DatasetIdentity, dvc_md5, git_commit
from raregrade.tracking.runs import StepRun, Tracking, group_of, start_step

__all__ = ["DatasetIdentity", "StepRun", "Tracking", "dvc_md5", "git_commit", "group_of", "start_step"]
