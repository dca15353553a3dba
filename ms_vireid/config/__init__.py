"""Configurations: `schema`, `models` and `losses` list every key, `reading` takes them from YAML and command lines."""

from ms_vireid.config.base import Positive, Section, expand_user
from ms_vireid.config.losses import LossConfig, Term
from ms_vireid.config.models import (
    AGWConfig,
    ModelConfig,
    MUNConfig,
    PMTConfig,
    Setting,
    list_models,
    other_sizes,
    require_fitting,
)
from ms_vireid.config.reading import (
    CONFIG_ROOT,
    apply_override,
    check_config,
    differing_keys,
    dump_config,
    flat,
    load_config,
    named_model,
    save_config,
)
from ms_vireid.config.schema import (
    FREE_KEYS,
    AdamWConfig,
    AugmentationConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    OptimizerConfig,
    SGDConfig,
    StageConfig,
    SyntheticConfig,
    TrainConfig,
    WarmupCosineConfig,
    WarmupStepsConfig,
)
