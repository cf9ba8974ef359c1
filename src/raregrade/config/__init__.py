"""params.yaml as typed, validated objects.

``load_params`` reads and checks the whole file before anything runs; ``Params.section`` hands a step
the part that it may read, and nothing else. ``load_settings`` reads it for the steps that train no loss, without torch.
"""

from raregrade.config.data import WAIVABLE, DataConfig, SplitConfig
from raregrade.config.evaluation import CompareConfig, EvaluateConfig
from raregrade.config.gate import AlarmConfig, GateRule, RegisterConfig
from raregrade.config.load import (
    dump_params,
    load_params,
    load_settings,
    merged_params,
    merged_text,
    params_from_dict,
)
from raregrade.config.metrics import LOWER_IS_BETTER, METRIC_TASKS
from raregrade.config.model import LossChoice, MadeFor, Params, PhantomConfig, Settings, StepVersions, TrackingConfig
from raregrade.config.sections import (
    CompareSection,
    EvaluateSection,
    PhantomSection,
    PrepareSection,
    RegisterSection,
    TrainSection,
    TuneSection,
    section,
    section_keys,
)
from raregrade.config.training import AugmentConfig, TrainConfig
from raregrade.config.tuning import StudyConfig, StudyStorage, TuneConfig

__all__ = [
    "LOWER_IS_BETTER",
    "METRIC_TASKS",
    "WAIVABLE",
    "AlarmConfig",
    "AugmentConfig",
    "CompareConfig",
    "CompareSection",
    "DataConfig",
    "EvaluateConfig",
    "EvaluateSection",
    "GateRule",
    "LossChoice",
    "MadeFor",
    "Params",
    "PhantomConfig",
    "PhantomSection",
    "PrepareSection",
    "RegisterConfig",
    "RegisterSection",
    "Settings",
    "SplitConfig",
    "StepVersions",
    "StudyConfig",
    "StudyStorage",
    "TrackingConfig",
    "TrainConfig",
    "TrainSection",
    "TuneConfig",
    "TuneSection",
    "dump_params",
    "load_params",
    "load_settings",
    "merged_params",
    "merged_text",
    "params_from_dict",
    "section",
    "section_keys",
]
