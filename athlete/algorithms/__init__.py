"""The algorithms by name, imported when asked for."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from athlete.algorithms.a2c import A2CConfig as A2CConfig
    from athlete.algorithms.alpha_star import AlphaStarConfig as AlphaStarConfig
    from athlete.algorithms.alpha_zero import AlphaZeroConfig as AlphaZeroConfig
    from athlete.algorithms.apex_ddpg import ApexDDPGConfig as ApexDDPGConfig
    from athlete.algorithms.apex_dqn import ApexDQNConfig as ApexDQNConfig
    from athlete.algorithms.appo import APPOConfig as APPOConfig
    from athlete.algorithms.ars import ARSConfig as ARSConfig
    from athlete.algorithms.bandit import BanditLinTSConfig as BanditLinTSConfig
    from athlete.algorithms.bandit import BanditLinUCBConfig as BanditLinUCBConfig
    from athlete.algorithms.bc import BCConfig as BCConfig
    from athlete.algorithms.cmaes import CMAESConfig as CMAESConfig
    from athlete.algorithms.cql import CQLConfig as CQLConfig
    from athlete.algorithms.crossq import CrossQConfig as CrossQConfig
    from athlete.algorithms.crr import CRRConfig as CRRConfig
    from athlete.algorithms.ddpg import DDPGConfig as DDPGConfig
    from athlete.algorithms.ddppo import DDPPOConfig as DDPPOConfig
    from athlete.algorithms.dqn import DQNConfig as DQNConfig
    from athlete.algorithms.dreamerv3 import DreamerV3Config as DreamerV3Config
    from athlete.algorithms.dt import DTConfig as DTConfig
    from athlete.algorithms.es import ESConfig as ESConfig
    from athlete.algorithms.impala import IMPALAConfig as IMPALAConfig
    from athlete.algorithms.iql import IQLConfig as IQLConfig
    from athlete.algorithms.iqn import IQNConfig as IQNConfig
    from athlete.algorithms.maddpg import MADDPGConfig as MADDPGConfig
    from athlete.algorithms.maml import MAMLConfig as MAMLConfig
    from athlete.algorithms.mappo import MAPPOConfig as MAPPOConfig
    from athlete.algorithms.marwil import MARWILConfig as MARWILConfig
    from athlete.algorithms.mbpo import MBPOConfig as MBPOConfig
    from athlete.algorithms.mpo import MPOConfig as MPOConfig
    from athlete.algorithms.muzero import MuZeroConfig as MuZeroConfig
    from athlete.algorithms.pg import PGConfig as PGConfig
    from athlete.algorithms.pgpe import PGPEConfig as PGPEConfig
    from athlete.algorithms.ppo import PPOConfig as PPOConfig
    from athlete.algorithms.pqn import PQNConfig as PQNConfig
    from athlete.algorithms.qmix import QMIXConfig as QMIXConfig
    from athlete.algorithms.qrdqn import QRDQNConfig as QRDQNConfig
    from athlete.algorithms.r2d2 import R2D2Config as R2D2Config
    from athlete.algorithms.random_agent import RandomAgentConfig as RandomAgentConfig
    from athlete.algorithms.rebrac import ReBRACConfig as ReBRACConfig
    from athlete.algorithms.redq import DroQConfig as DroQConfig
    from athlete.algorithms.redq import REDQConfig as REDQConfig
    from athlete.algorithms.rnnsac import RNNSACConfig as RNNSACConfig
    from athlete.algorithms.sac import SACConfig as SACConfig
    from athlete.algorithms.simple_q import SimpleQConfig as SimpleQConfig
    from athlete.algorithms.slateq import SlateQConfig as SlateQConfig
    from athlete.algorithms.td3 import TD3Config as TD3Config
    from athlete.algorithms.td3_bc import TD3BCConfig as TD3BCConfig
    from athlete.algorithms.tdmpc2 import TDMPC2Config as TDMPC2Config
    from athlete.algorithms.tqc import TQCConfig as TQCConfig
    from athlete.algorithms.trpo import TRPOConfig as TRPOConfig
    from athlete.settings.config import AlgorithmConfig

# Name -> module; the module has `<Name>Config`.
ALGORITHMS: dict[str, str] = {
    "PPO": "athlete.algorithms.ppo",
    "A2C": "athlete.algorithms.a2c",
    "PG": "athlete.algorithms.pg",
    "TRPO": "athlete.algorithms.trpo",
    "IMPALA": "athlete.algorithms.impala",
    "APPO": "athlete.algorithms.appo",
    "DDPPO": "athlete.algorithms.ddppo",
    "DQN": "athlete.algorithms.dqn",
    "ApexDQN": "athlete.algorithms.apex_dqn",
    "SAC": "athlete.algorithms.sac",
    "TQC": "athlete.algorithms.tqc",
    "MBPO": "athlete.algorithms.mbpo",
    "MPO": "athlete.algorithms.mpo",
    "AlphaZero": "athlete.algorithms.alpha_zero",
    "MuZero": "athlete.algorithms.muzero",
    "DDPG": "athlete.algorithms.ddpg",
    "ApexDDPG": "athlete.algorithms.apex_ddpg",
    "TD3": "athlete.algorithms.td3",
    "QRDQN": "athlete.algorithms.qrdqn",
    "CrossQ": "athlete.algorithms.crossq",
    "REDQ": "athlete.algorithms.redq",
    "DroQ": "athlete.algorithms.redq",
    "IQN": "athlete.algorithms.iqn",
    "PQN": "athlete.algorithms.pqn",
    "R2D2": "athlete.algorithms.r2d2",
    "RNNSAC": "athlete.algorithms.rnnsac",
    "DreamerV3": "athlete.algorithms.dreamerv3",
    "TDMPC2": "athlete.algorithms.tdmpc2",
    "SimpleQ": "athlete.algorithms.simple_q",
    "QMIX": "athlete.algorithms.qmix",
    "MAPPO": "athlete.algorithms.mappo",
    "MADDPG": "athlete.algorithms.maddpg",
    "AlphaStar": "athlete.algorithms.alpha_star",
    "MAML": "athlete.algorithms.maml",
    "ES": "athlete.algorithms.es",
    "ARS": "athlete.algorithms.ars",
    "CMAES": "athlete.algorithms.cmaes",
    "PGPE": "athlete.algorithms.pgpe",
    "BC": "athlete.algorithms.bc",
    "MARWIL": "athlete.algorithms.marwil",
    "IQL": "athlete.algorithms.iql",
    "TD3BC": "athlete.algorithms.td3_bc",
    "ReBRAC": "athlete.algorithms.rebrac",
    "CQL": "athlete.algorithms.cql",
    "CRR": "athlete.algorithms.crr",
    "DT": "athlete.algorithms.dt",
    "BanditLinUCB": "athlete.algorithms.bandit",
    "BanditLinTS": "athlete.algorithms.bandit",
    "SlateQ": "athlete.algorithms.slateq",
    "RandomAgent": "athlete.algorithms.random_agent",
}

# Other name -> the algorithm that serves it: A3C's settings are A2C's, whose gradients are synchronous; Dreamer is the
# third of its versions.
ALIASES: dict[str, str] = {"A3C": "A2C", "APEX": "ApexDQN", "APEX_DDPG": "ApexDDPG", "Dreamer": "DreamerV3"}

# RLlib's algorithms that are not here, in lower case without other signs -> what is so instead.
NOT_HERE: dict[str, str] = {
    "mbmpo": "there is no meta-learning in models yet; MBPO learns a model, and MAML to adapt",
    "leelachesszero": "its games of two are AlphaZero's",
    "bandit": "its bandits are BanditLinUCB and BanditLinTS",
}


def told_of_absent(name: str) -> str | None:
    """What is so instead, as a sentence, for an algorithm of RLlib's that is not here; None for other names."""
    told = NOT_HERE.get("".join(sign for sign in str(name).lower() if sign.isalnum()))
    return None if told is None else f"RLlib's {name} is not here: {told}. Athlete has: {', '.join(ALGORITHMS)}"


def get_config_class(name: str) -> type[AlgorithmConfig]:
    """The configuration class of the algorithm `name`. Raises ValueError with the nearest name, or what there is."""
    by_lower = {known.lower(): ALIASES.get(known, known) for known in (*ALGORITHMS, *ALIASES)}
    known = by_lower.get(str(name).lower())
    if known is None:
        if (told := told_of_absent(name)) is not None:
            raise ValueError(told)
        near = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
        hint = f"; did you mean {by_lower[near[0]]!r}?" if near else ";"
        raise ValueError(f"there is no algorithm {name!r}{hint} Athlete has: {', '.join(ALGORITHMS)}")
    return getattr(importlib.import_module(ALGORITHMS[known]), f"{known}Config")


def __getattr__(name: str) -> Any:
    if name.endswith("Config") and name.removesuffix("Config") in (*ALGORITHMS, *ALIASES):
        return get_config_class(name.removesuffix("Config"))
    raise AttributeError(f"module 'athlete.algorithms' has no {name!r}")
