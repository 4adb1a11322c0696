"""What everything else is written in: the contracts (`contracts`) and the classes of hyperparameters (`hyper`)."""

from athlete.core import oldest  # noqa: F401  # isort: skip  (first: others import what an older JAX lacks)
from athlete.core.contracts import (
    AGENT_STEPS,
    ActingCarry,
    Agent,
    Array,
    Env,
    Episodes,
    Group,
    Health,
    Key,
    Memory,
    Model,
    Rows,
    Run,
    Source,
    Spec,
    Stage,
    Step,
    Transition,
    Tree,
    Which,
)
from athlete.core.hyper import hyper
from athlete.core.multi_agent import MultiEnv, MultiStep, agent_ids
from athlete.core.wrappers import EnvWrapper, MultiEnvWrapper, SourceWrapper

__all__ = [
    "AGENT_STEPS",
    "ActingCarry",
    "Agent",
    "Array",
    "Env",
    "EnvWrapper",
    "Episodes",
    "Group",
    "Health",
    "Key",
    "Memory",
    "Model",
    "MultiEnv",
    "MultiEnvWrapper",
    "MultiStep",
    "Rows",
    "Run",
    "Source",
    "SourceWrapper",
    "Spec",
    "Stage",
    "Step",
    "Transition",
    "Tree",
    "Which",
    "agent_ids",
    "hyper",
]
