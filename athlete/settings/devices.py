"""Over how many devices a training is spread, by its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from athlete.settings.config import AlgorithmConfig

AUTO = "auto"
# Where one of several processes is: of no use to whoever reads a checkpoint.
PLACES = ("coordinator_address", "num_processes", "process_id")


def wanted_devices(config: AlgorithmConfig) -> int | None:
    """How many devices the settings ask for, at least 1; None for as many as there are and fit."""
    if config.num_learners == AUTO:
        return None
    return max(1, config.num_learners, int(config.num_gpus))


def most_that_fit(config: AlgorithmConfig, devices: int) -> int:
    """The largest number of devices, at most `devices`, that rows and minibatches can be shared out among."""
    return next(number for number in range(devices, 0, -1) if misfit(config, number) is None)


def require_fit(config: AlgorithmConfig) -> None:
    """Raise ValueError where rows or minibatches cannot be shared out as asked, or where two things are asked."""
    learners, gpus = config.num_learners, int(config.num_gpus)
    if gpus > 1 and learners not in (0, gpus):
        raise ValueError(
            f"num_learners={learners!r} and num_gpus={gpus} both say how many devices learn; leave one out"
        )
    wanted = wanted_devices(config)
    given = [name for name in PLACES if config[name] is not None]
    if given and len(given) < len(PLACES):
        missing = ", ".join(name for name in PLACES if name not in given)
        raise ValueError(f"learners({given[0]}=...) is one of several processes, and {missing} has to say more")
    if wanted is not None and (sentence := misfit(config, wanted)) is not None:
        raise ValueError(f"{'num_gpus' if gpus > 1 else 'num_learners'}={wanted}: {sentence}")


def misfit(config: AlgorithmConfig, devices: int) -> str | None:
    """Why so many devices cannot share a training out evenly; None where they can."""
    rows, sequence = config.rows(), config.sequence_length()
    offline = config.is_offline()
    if rows % devices and not offline:
        return (
            f"{devices} devices cannot share {rows} environments out evenly; make num_envs_per_worker x "
            "num_rollout_workers a multiple"
        )
    assert config.agent_class is not None
    name, batch = "train_batch_size", config.train_batch_size
    if "minibatch_size" in config and not offline:
        name, batch = "minibatch_size", config.minibatch_timesteps()
    elif "replay_buffer_config" not in config and not offline:
        return None  # it learns from the whole batch, which rows make
    if config.agent_class.joint or max(1, batch // sequence) % devices == 0:
        return None
    unit = "timesteps" if sequence == 1 else f"timesteps, {max(1, batch // sequence)} sequences of {sequence},"
    return f"{devices} devices cannot share {name}={batch} {unit} out evenly; make it a multiple"
