"""Which environment a configuration means, and where it runs: compiled, or hosted by Gymnasium."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from athlete.core import Env, MultiEnv, MultiEnvWrapper, Source, Spec
from athlete.env.adapters.stepped import require_unstepped
from athlete.env.checks.check import check_env
from athlete.env.masks import mask_path, say_masks_are_read, told_path
from athlete.env.multi_agent import JointEnv
from athlete.env.registry import (
    PARTLY_SHOWN,
    EnvContext,
    create,
    is_dotted_path,
    is_jax_env,
    is_of_package,
    registered,
    resolve,
)
from athlete.env.simulators import simulated
from athlete.env.supervision import UNSUPERVISED, Supervision
from athlete.env.twins import find_twin
from athlete.env.wrappers.acting_together import ActingTogetherSource
from athlete.env.wrappers.copies import Copies
from athlete.env.wrappers.frame_stack import FrameStack
from athlete.env.wrappers.grouped import Grouped
from athlete.env.wrappers.lifted_mask import LiftedMask
from athlete.env.wrappers.logged_actions import LoggedActionsSource
from athlete.env.wrappers.previous import FilmedPreviousStep, Previous, PreviousStep, PreviousStepSource
from athlete.env.wrappers.shuffled_seats import ShuffledSeats, ShuffledSeatsSource
from athlete.env.wrappers.time_limit import TimeLimit
from athlete.log import logger
from athlete.ops.random import unwrap, wrap


class World(NamedTuple):
    """An environment, ready to be used in either way. `env` is None where it lives outside JAX."""

    name: str
    env: Env | None
    maker: Any  # what `athlete.env.adapters.source.GymnasiumSource` takes, or EnvPool's id
    env_config: dict[str, Any]
    is_twin: bool
    previous: Previous = Previous()
    pooled: bool = False  # stepped by EnvPool
    many_agents: bool = False  # of RLlib's form or PettingZoo's, stepped by `MultiAgentSource`
    shuffles_seats: bool = False  # outside JAX
    acts_together: bool = False  # all its agents at every step, outside JAX

    @property
    def exists(self) -> bool:
        """False where there is no environment, only data of one."""
        return self.env is not None or self.maker is not None

    def with_shuffled_seats(self) -> World:
        """The same where agents take random seats in every episode. Raises ValueError where there is one agent."""
        if isinstance(self.env, JointEnv):
            return self._replace(env=JointEnv(ShuffledSeats(self.env.env)))
        if self.env is None and self.many_agents:
            return self._replace(shuffles_seats=True)
        raise ValueError(f"multi_agent(shuffle_seats=True): {self.name} has one agent")

    def acting_together(self) -> World:
        """The same for algorithms whose agents act at every step, all of them: groups of agents are seen through."""
        if isinstance(self.env, JointEnv) and isinstance(self.env.env, Grouped):
            return self._replace(env=JointEnv(self.env.env.env))
        if self.env is not None or not self.many_agents:
            return self
        from athlete.env.adapters.agents import make_ungrouped, ungrouped

        maker = ungrouped(self.maker) if self.is_instance else functools.partial(make_ungrouped, self.maker)
        return self._replace(maker=maker, acts_together=True)

    def simulated(self) -> World:
        """The same as a search plays on it; see `athlete.env.simulators`. Raises ValueError where it cannot."""
        return self._replace(env=simulated(self.env, self.name), is_twin=False)

    def showing(self, previous: Previous) -> World:
        """The same with observations that also show what led to them, where `previous` says so."""
        if not any(previous):
            return self
        if self.many_agents or (self.env is not None and self.env.groups):
            raise ValueError(
                f"lstm_use_prev_action and lstm_use_prev_reward are for one agent, and {self.name} has many: show them "
                "in the observations that the environment gives to each"
            )
        env = None if self.env is None else PreviousStep(self.env, previous)
        return self._replace(env=env, previous=previous)

    def checked(self) -> World:
        """The same after `check_env`; masks of `info["action_mask"]` are then in its observations.

        Raises ValueError with what is wrong with it.
        """
        if self.is_twin or self.pooled or self.is_external:
            return self
        if self.env is not None:
            check_env(self.env)
            return self
        if self.many_agents:
            check_env(self.maker, self.env_config)
            return self
        from athlete.env.adapters.gymnasium import make_gymnasium

        env = make_gymnasium(self.maker, self.env_config)
        try:
            world, shown = self._with_mask_of_info(env)
            check_env(shown, adapt=True)
        finally:
            if not self.is_instance:
                env.close()
        return world

    @property
    def is_instance(self) -> bool:
        """Whether it is one environment that is made already, outside JAX."""
        return self.env is None and hasattr(self.maker, "step") and not isinstance(self.maker, type)

    @property
    def is_external(self) -> bool:
        """Whether clients play it, who may choose their actions themselves."""
        return getattr(self.maker, "external", False)

    def tell_clients(self, refusal: str | None) -> None:
        """Tell those who play it, if any, why actions that they log are not learned from; None where they are."""
        if self.is_external:
            self.maker.exchange.tell_clients(refusal)

    def shares_instance(self, other: World) -> bool:
        """Whether both are the one environment that somebody made: who steps it in one takes it away from the other."""
        mine, others = (getattr(world.maker, "unwrapped", world.maker) for world in (self, other))
        return self.is_instance and mine is others

    def _with_mask_of_info(self, env: Any) -> tuple[World, Any]:
        """The same, and `env`, which it made, with a mask that is told in `info` in their observations."""
        from athlete.env.adapters.gymnasium import (
            ActionMaskObservation,
            make_with_mask_of_info,
            tells_mask_in_info,
        )

        try:
            told = tells_mask_in_info(env)
        except Exception:  # which `check_env` comes across and says in full
            told = False
        if not told:
            return self, env
        say_masks_are_read(env_name(env.unwrapped), "info['action_mask']")
        shown = ActionMaskObservation(env)
        maker = shown if self.is_instance else functools.partial(make_with_mask_of_info, self.maker)
        return self._replace(maker=maker), shown

    def portable(self) -> World:
        """The same where other processes, which know no names of this one's, can make it.

        Raises ValueError where it cannot be sent to them.
        """
        from athlete.env.adapters.gymnasium import named_spec
        from athlete.env.adapters.making import RowMaker, require_picklable

        maker = named_spec(resolve(self.maker))
        require_picklable(RowMaker(maker, self.env_config, 0, 1, 1))
        return self._replace(maker=maker)

    def source(
        self,
        *,
        num_workers: int = 0,
        num_envs_per_worker: int = 1,
        seeded_resets: bool = False,
        supervision: Supervision = UNSUPERVISED,
        seed: int | None = None,
        worker: int | None = None,
        most_rows: int | None = None,
    ) -> Source:
        """Rows of it outside JAX: on Gymnasium, EnvPool, RLlib's form of many agents or PettingZoo.

        `seed` is of the global generators while they are made. With `worker` only the rows of the worker of that number
        are made, in this process, of `most_rows` in all; see `Source.here`.
        """
        from athlete.env.adapters.agents_source import MultiAgentSource
        from athlete.env.adapters.source import GymnasiumSource

        source: Source
        if self.pooled:
            from athlete.env.adapters.envpool import EnvPoolSource

            source = EnvPoolSource(self.maker, self.env_config, rows=max(num_workers, 1) * num_envs_per_worker)
        else:
            hosted = MultiAgentSource if self.many_agents else GymnasiumSource
            source = hosted(
                self.maker,
                self.env_config,
                num_workers=num_workers,
                num_envs_per_worker=num_envs_per_worker,
                seeded_resets=seeded_resets,
                supervision=supervision,
                seed=seed,
                worker=worker,
                most_rows=most_rows,
            )
        if self.is_external:
            source = LoggedActionsSource(source)
        if self.shuffles_seats:
            source = ShuffledSeatsSource(source)
        if self.acts_together:
            source = ActingTogetherSource(source)
        return PreviousStepSource(source, self.previous) if any(self.previous) else source

    def make_one(self) -> Any:
        """One environment of Gymnasium, whose methods answer for all of them; where somebody made one, that one."""
        from athlete.env.adapters.gymnasium import make_gymnasium

        if self.pooled or self.many_agents:
            raise ValueError(f"{self.name} is no environment of Gymnasium, whose methods could be called")
        return make_gymnasium(self.maker, self.env_config)

    def _unpooled(self) -> tuple[Any, dict[str, Any]]:
        """Gymnasium's maker of an environment of EnvPool and its `env_config`, as near as they come."""
        from athlete.env.adapters.envpool import as_ale_config, is_atari_of_pool

        if not is_atari_of_pool(self.maker):
            return self.maker, {}
        env_id = self.maker if _is_atari(self.maker) else f"ALE/{self.maker}"
        return _atari_or(env_id), as_ale_config(self.env_config)

    def make_for_film(self) -> Any:
        """One environment, Gymnasium's way, that renders arrays."""
        if self.env is not None and not self.is_twin:
            return FilmedEnv(self.env)
        if self.many_agents:
            from athlete.env.adapters.agents_source import FilmedAgents

            return FilmedAgents(self.maker, self.env_config)
        from athlete.env.adapters.gymnasium import make_todays, to_space

        maker, env_config = self._unpooled() if self.pooled else (self.maker, self.env_config)
        env = make_todays(maker, {**env_config, "render_mode": "rgb_array"})
        if not self.is_instance:
            require_unstepped(env)
        if self.pooled:
            seen, shown = self.source().spec.obs, to_space(env.observation_space, "observation_space")
            if seen != shown:
                raise ValueError(
                    f"{self.name} cannot be filmed: EnvPool draws nothing, and Gymnasium's form of it shows {shown}, "
                    f"where the policy sees {seen}"
                )
        if not any(self.previous):
            return env
        return FilmedPreviousStep(env, to_space(env.action_space, "action_space"), self.previous)


def find_world(
    env: Any, env_config: Mapping[str, Any], backend: str, preprocessor_pref: str | None = "deepmind"
) -> World:
    """The environment that `env` names, compiled where it can be and `backend` allows.

    An id of Atari (`"ALE/Pong-v5"`) is preprocessed as Mnih et al. (2015) did where `preprocessor_pref` is "deepmind".

    Raises ValueError where `backend="jax"` and there is no JAX form, where the environment cannot be made, or where
    an extra that it needs is not installed.
    """
    name = env_name(env)
    config = dict(env_config)
    if backend == "envpool":
        return _find_in_pool(env, config)
    if backend == "gymnasium" and isinstance(env, str) and env in PARTLY_SHOWN:
        from athlete.env.adapters.gymnasium import make_partly_shown

        return World(name, None, functools.partial(make_partly_shown, *PARTLY_SHOWN[env]), config, False)
    resolved = resolve(env)
    if isinstance(resolved, str) and _is_atari(resolved):
        return _find_atari(resolved, config, backend, preprocessor_pref)
    if isinstance(resolved, str):
        return _find_by_id(resolved, config, backend)
    if is_jax_env(resolved):
        jax_env = create(resolved, EnvContext(config)) if isinstance(resolved, type) else resolved
        return World(name, _compiled(jax_env, name, backend), resolved, config, False)
    many_agents = _has_many_agents(resolved)
    if callable(resolved) and not many_agents and not _is_of_gymnasium(resolved):
        made = create(resolved, EnvContext(config))  # only its product tells which kind a factory makes
        if is_jax_env(made):
            return World(name, _compiled(made, name, backend), resolved, config, False)
        many_agents = _has_many_agents(made)
        if hasattr(made, "close"):
            made.close()
    if backend == "jax":
        raise ValueError(f"environment({name}, backend='jax'): it is no JAX environment (athlete.core.Env)")
    return World(name, None, resolved, config, False, many_agents=many_agents)


def require_there(env: Any, env_config: Mapping[str, Any], backend: str) -> None:
    """Raise ValueError for a name that no environment has, or whose package is not installed.

    What is no plain name (a class, a path that would be imported) is found out when it is made. Only the packages of
    others know their names, so that one of theirs is made.
    """
    if isinstance(env, str) and not registered(env) and is_of_package(env):
        made = resolve(env)(env_config)
        if hasattr(made, "close"):
            made.close()
        return
    if not isinstance(env, str) or backend == "envpool" or ":" in env or is_dotted_path(env) or registered(env):
        return
    if _is_atari(env):
        from athlete.env.adapters.gymnasium import require_atari

        require_atari()
    elif isinstance(resolve(env), str) and find_twin(env, dict(env_config))[0] is None:
        from athlete.env.adapters.gymnasium import find_spec, why_missing

        find_spec(env)
        if (reason := why_missing(env)) is not None:
            raise ValueError(f"environment {env!r} cannot be made here: {reason}")


def no_world() -> World:
    """Of a training that learns from recorded data and is never evaluated."""
    return World(env_name(None), None, None, {}, False)


def _has_many_agents(env: Any) -> bool:
    from athlete.env.adapters.agents import agents_form

    return agents_form(env) is not None


def _is_of_gymnasium(env: Any) -> bool:
    """Whether it is an environment, or a class of those of Gymnasium or the old Gym; other classes are factories."""
    inherited = isinstance(env, type) and "Env" in [ancestor.__name__ for ancestor in env.__mro__[1:]]
    return inherited or (hasattr(env, "step") and not isinstance(env, type))


def _find_by_id(env_id: str, config: dict[str, Any], backend: str) -> World:
    if backend == "gymnasium":
        return World(env_id, None, env_id, config, False)
    twin, why = find_twin(env_id, config)
    if twin is None and backend == "jax":
        raise ValueError(f"environment({env_id!r}, backend='jax'): {why}")
    if twin is None:
        from athlete.env.adapters.gymnasium import find_spec

        find_spec(env_id)  # a slip in the name is an error now, and not when the first environment is made
    if twin is not None or config:
        logger.info(why)
    return World(env_id, twin, env_id, config, twin is not None)


def _find_in_pool(env: Any, config: dict[str, Any]) -> World:
    from athlete.env.adapters.envpool import pool_spec

    if not isinstance(env, str):
        raise ValueError(f"environment({env_name(env)}, backend='envpool'): EnvPool makes environments from their ids")
    pool_spec(env, config)
    return World(env, None, env, config, False, pooled=True)


_ATARI = re.compile(r"ALE/.*|\w+(NoFrameskip|Deterministic)-v\d+")
# The games of the ids from before v5, which have no prefix: `"Pong-v4"`.
_OLD_ATARI = re.compile(
    "(Adventure|AirRaid|Alien|Amidar|Assault|Asterix|Asteroids|Atlantis|BankHeist|BattleZone|BeamRider|Berzerk|Bowling"
    "|Boxing|Breakout|Carnival|Centipede|ChopperCommand|CrazyClimber|Defender|DemonAttack|DoubleDunk|ElevatorAction"
    "|Enduro|FishingDerby|Freeway|Frostbite|Gopher|Gravitar|Hero|IceHockey|Jamesbond|JourneyEscape|Kangaroo|Krull"
    "|KungFuMaster|MontezumaRevenge|MsPacman|NameThisGame|Phoenix|Pitfall|Pong|Pooyan|PrivateEye|Qbert|Riverraid"
    "|RoadRunner|Robotank|Seaquest|Skiing|Solaris|SpaceInvaders|StarGunner|Tennis|TimePilot|Tutankham|UpNDown|Venture"
    "|VideoPinball|WizardOfWor|YarsRevenge|Zaxxon)-v[04]"
)


def _is_atari(env_id: str) -> bool:
    """Whether it is an id of ale-py's, old or new, with or without the package in front: `"ale_py:ALE/Pong-v5"`.

    One that shows the machine's memory is not: there is no picture to preprocess.
    """
    name = env_id.rpartition(":")[2]
    if "-ram" in name:
        return False
    if _OLD_ATARI.fullmatch(name) is None:
        return _ATARI.fullmatch(name) is not None
    # Somebody may have registered a game of that name. Only a process that has imported Gymnasium can have.
    registration = sys.modules.get("gymnasium.envs.registration")
    spec = None if registration is None else registration.registry.get(name)
    return spec is None or str(spec.entry_point).startswith("ale_py")


def _find_atari(env_id: str, config: dict[str, Any], backend: str, preprocessor_pref: str | None) -> World:
    from athlete.env.adapters.gymnasium import find_spec, require_atari

    if backend == "jax":
        raise ValueError(
            f"environment({env_id!r}, backend='jax'): Atari has no JAX form; backend='envpool' is its fast one"
        )
    require_atari()
    find_spec(env_id)
    return World(env_id, None, _atari_or(env_id) if preprocessor_pref == "deepmind" else env_id, config, False)


def _atari_or(env_id: str) -> Any:
    """What makes the preprocessed game where the id is of Atari, else the id."""
    from athlete.env.adapters.gymnasium import make_atari

    return functools.partial(make_atari, env_id) if _is_atari(env_id) else env_id


def _compiled(env: Env | MultiEnv, name: str, backend: str) -> Env:
    """A JAX environment as agents see it: many of them as one, a mask of actions where it is looked for."""
    if backend == "gymnasium":
        raise ValueError(f"environment({name}, backend='gymnasium'): it is a JAX environment; leave backend out")
    if isinstance(env, MultiEnv):
        return JointEnv(env)
    path = mask_path(getattr(env, "observation_space", None), getattr(env, "action_space", None))
    if path is None:
        return env
    say_masks_are_read(name, told_path(path))
    return LiftedMask(env, path)


def env_name(env: Any) -> str:
    """How an environment is called in names of folders and messages."""
    if env is None:
        return "no environment"
    if isinstance(env, str):
        return env
    if isinstance(env, type):
        return env.__name__
    made_from = getattr(getattr(env, "spec", None), "id", None)  # of Gymnasium's, which may be wrapped
    return str(made_from or getattr(env, "__name__", type(env).__name__))


# Wrappers, whose pictures are those of what they wrap.
_DRAWN_BY_INNER = (
    *(FrameStack, LiftedMask, PreviousStep, TimeLimit),
    *(JointEnv, Copies, MultiEnvWrapper),
)


class FilmedEnv:
    """A JAX environment in Gymnasium's form, one row, for films: needs `render(state)` giving uint8 [H, W, 3]."""

    def __init__(self, env: Env):
        inner: Any = env
        while isinstance(inner, _DRAWN_BY_INNER):
            inner = inner.env
        if not hasattr(inner, "render"):
            raise ValueError(
                f"{type(inner).__name__} cannot be filmed: give it a method render(state) that returns an image, "
                "a uint8 array [height, width, 3]"
            )
        self.env = env
        self.metadata = {"render_fps": getattr(inner, "render_fps", 30)}
        self.spec: Spec = Spec(env.observation_space, env.action_space, env.groups)
        self._reset = jax.jit(lambda key: env.reset(wrap(key)))
        self._step = jax.jit(lambda state, action, key: env.step(state, action, wrap(key)))
        self._next_key = jax.jit(lambda key: unwrap(jax.random.split(wrap(key))))
        self._key: Any = None
        self._state: Any = None

    def reset(self, *, seed: int = 0) -> tuple[Any, dict]:
        self._key, key = self._next_key(np.array([0, seed], np.uint32))
        self._state, obs = self._reset(key)
        return obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """Gymnasium's five; the reward of many agents is the sum of theirs."""
        self._key, key = self._next_key(self._key)
        self._state, step = self._step(self._state, action, key)
        return step.obs, float(np.sum(step.reward)), bool(step.terminated), bool(step.truncated), {}

    def render(self) -> Any:
        return np.asarray(self.env.render(self._state))  # type: ignore[attr-defined]

    def close(self) -> None:
        self._state = None
