"""JaxMARL's environments through the adapter. `make test-extras` has an environment with the package for them."""

import numpy as np
import pytest

from athlete.env.checks.check import check_env
from athlete.env.world import find_world


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    from athlete.env.adapters import jaxmarl

    jaxmarl._made.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "jaxmarl", None)
    with pytest.raises(ValueError, match=r"JaxMARL is missing; pip install jaxmarl six"):
        find_world("jaxmarl/MPE_simple_spread_v3", {}, "auto")


@pytest.fixture
def jaxmarl():
    return pytest.importorskip("jaxmarl")


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("MPE_simple_spread_v3", {"agent": 3}),
        ("MPE_simple_tag_v3", {"adversary": 3, "agent": 1}),
        ("MPE_simple_speaker_listener_v4", {"speaker": 1, "listener": 1}),
        ("switch_riddle", {"agent": 3}),
        ("overcooked", {"agent": 2}),
        ("hanabi", {"agent": 2}),
        ("coin_game", {"agent": 2}),
    ],
)
def test_environments_keep_the_promises_of_ours(jaxmarl, name, groups):
    check_env(f"jaxmarl/{name}")
    env = find_world(f"jaxmarl/{name}", {}, "auto").env.env
    assert {name: group.size for name, group in env.groups.items()} == groups and env.always_acting


def test_agents_of_smax_leave_when_they_die_unless_told_to_stay(jaxmarl):
    check_env("jaxmarl/HeuristicEnemySMAX", {"scenario": "3m"})
    env = find_world("jaxmarl/HeuristicEnemySMAX", {"scenario": "3m"}, "auto").env.env
    assert not env.always_acting and env.groups["ally"].size == 3
    assert find_world("jaxmarl/HeuristicEnemySMAX", {"always_acting": True}, "auto").env.env.always_acting


def test_an_episode_is_jaxmarls_step_by_step(jaxmarl):
    import jax
    import jax.numpy as jnp
    from jaxmarl.environments.smax import map_name_to_scenario

    from athlete.env.adapters.jaxmarl import make_jaxmarl

    ours = make_jaxmarl("jaxmarl/HeuristicEnemySMAX", {"scenario": "3m"})
    theirs = jaxmarl.make("HeuristicEnemySMAX", scenario=map_name_to_scenario("3m"))
    key, generator = jax.random.key(3), np.random.default_rng(0)
    state, obs, _ = jax.jit(ours.reset)(key)
    their_obs, their_state = theirs.reset(key)
    step, their_step = jax.jit(ours.step), jax.jit(theirs.step_env)
    gone = np.zeros(3, bool)
    for i in range(100):
        legal = obs["ally"]["action_mask"]
        np.testing.assert_array_equal(legal, np.stack(list(theirs.get_avail_actions(their_state).values())))
        np.testing.assert_array_equal(obs["ally"]["observations"], np.stack([their_obs[a] for a in theirs.agents]))
        actions = np.array([generator.choice(np.flatnonzero(mask)) for mask in np.asarray(legal)])
        step_key = jax.random.fold_in(key, i)
        state, taken = step(state, {"ally": jnp.asarray(actions)}, step_key)
        by_agent = dict(zip(theirs.agents, actions, strict=True))
        their_obs, their_state, reward, done, _ = their_step(step_key, their_state, by_agent)
        dead = np.array([bool(done[agent]) for agent in theirs.agents])
        np.testing.assert_array_equal(taken.reward["ally"], [reward[agent] for agent in theirs.agents])
        np.testing.assert_array_equal(taken.terminated["ally"], dead & ~gone)
        assert bool(taken.all_terminated) == bool(done["__all__"])
        gone, obs = gone | dead, taken.obs
        assert taken.acting["ally"].tolist() == (~gone & ~bool(done["__all__"])).tolist()
        if done["__all__"]:
            break
    assert gone.any() and done["__all__"]


@pytest.mark.parametrize(
    ("name", "env_config", "sentence"),
    [
        ("MPE_simple_spread_v2", {}, "did you mean 'jaxmarl/MPE_simple_spread_v3'?"),
        ("overcooked", {"size": 3}, "unexpected keyword argument 'size'"),
        ("storm_np", {}, "it shows a .* without an entry for each of its agents"),
    ],
)
def test_slips_are_named(jaxmarl, name, env_config, sentence):
    with pytest.raises(ValueError, match=sentence):
        find_world(f"jaxmarl/{name}", env_config, "auto")
