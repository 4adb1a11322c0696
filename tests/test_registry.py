"""Names for environments, and how classes and factories are called."""

import subprocess
import sys

import pytest

from athlete.env.registry import EnvContext, create, is_jax_env, register_env, registered, registered_names, resolve


class TakesConfig:
    def __init__(self, config):
        self.got = config


class TakesNamed:
    def __init__(self, size=3, slippery=False):
        self.got = (size, slippery)


def annotated(anything: EnvContext):
    return anything


def test_a_registered_name_stands_for_its_factory():
    register_env("registry-test", TakesConfig)
    assert registered("registry-test") is TakesConfig
    assert resolve("registry-test") is TakesConfig
    assert "registry-test" in registered_names()
    register_env("registry-test", TakesNamed)
    assert resolve("registry-test") is TakesNamed


def test_unregistered_names_are_left_alone():
    assert registered("CartPole-v1") is None
    assert resolve("CartPole-v1") == "CartPole-v1"
    assert resolve(TakesConfig) is TakesConfig


@pytest.mark.parametrize(("name", "factory"), [("", TakesConfig), (3, TakesConfig), ("name", "CartPole-v1")])
def test_registering_something_else_is_refused(name, factory):
    with pytest.raises(ValueError, match="register_env"):
        register_env(name, factory)


def test_a_dotted_path_is_a_class():
    assert resolve("athlete.env.registry.EnvContext") is EnvContext


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("no_such_package.module.Class", "no module 'no_such_package'"),
        ("athlete.env.registry.EnvContex", "did you mean 'EnvContext'"),
    ],
)
def test_a_path_that_leads_nowhere_says_where_it_ends(path, sentence):
    with pytest.raises(ValueError, match=sentence):
        resolve(path)


@pytest.mark.parametrize(
    ("maker", "env_config", "got"),
    [
        (TakesConfig, {"size": 5}, {"size": 5}),  # RLlib's way
        (TakesConfig, {}, {}),
        (TakesNamed, {"size": 5}, (5, False)),  # Gymnasium's way
        (TakesNamed, {}, (3, False)),
    ],
)
def test_classes_get_what_they_accept(maker, env_config, got):
    assert create(maker, EnvContext(env_config)).got == got


@pytest.mark.parametrize(
    ("factory", "env_config", "got"),
    [
        (lambda: "nothing", {}, "nothing"),
        (lambda env_config: dict(env_config), {"a": 1}, {"a": 1}),
        (lambda _: dict(_), {"a": 1}, {"a": 1}),
        (lambda c: dict(c), {}, {}),
        (lambda cfg=None: cfg, {}, {}),
        (lambda size: size, {"size": 4}, 4),
        (lambda config: config, {"config": 4}, 4),  # an entry of that name is the argument itself
        (lambda **entries: entries, {"a": 1}, {"a": 1}),
        (annotated, {"a": 1}, {"a": 1}),
    ],
)
def test_factories_get_what_they_accept(factory, env_config, got):
    assert create(factory, EnvContext(env_config)) == got


def test_the_render_mode_goes_beside_the_configuration_where_a_class_takes_it_there():
    def beside(env_config=None, render_mode=None):
        return env_config, render_mode

    given = EnvContext({"size": 5, "render_mode": "rgb_array"}, worker_index=2)
    context, render_mode = create(beside, given)
    assert (dict(context), context.worker_index, render_mode) == ({"size": 5}, 2, "rgb_array")
    assert create(lambda env_config: env_config, given) is given
    assert create(beside, EnvContext({"size": 5})) == ({"size": 5}, None)


def test_the_context_says_for_which_row_it_is():
    context = create(TakesConfig, EnvContext({"size": 5}, worker_index=2, vector_index=1, num_workers=4)).got
    assert (context.worker_index, context.vector_index, context.num_workers, context.remote) == (2, 1, 4, True)
    assert not EnvContext().remote


@pytest.mark.parametrize(
    ("maker", "env_config", "sentence"),
    [
        (TakesNamed, {"sise": 5}, r"TakesNamed\(size=3, slippery=False\): it has no 'sise'; did you mean 'size'"),
        (lambda size: size, {"sise": 5}, "did you mean 'size'"),
        (lambda: "nothing", {"size": 5}, "it has no 'size'"),
        (lambda size, depth: size, {"size": 5}, "give all that it needs"),
    ],
)
def test_an_env_config_that_does_not_fit_is_an_error_that_shows_the_signature(maker, env_config, sentence):
    with pytest.raises(ValueError, match=sentence):
        create(maker, EnvContext(env_config))


def test_an_error_inside_a_class_is_not_taken_for_a_misfit():
    def broken(size):
        raise TypeError("inside")

    with pytest.raises(TypeError, match="inside"):
        create(broken, EnvContext({"size": 1}))


def test_jax_environments_are_known_as_instances_and_classes():
    from athlete.core import Env

    assert is_jax_env(Env()) and is_jax_env(Env)
    assert not is_jax_env(TakesConfig({})) and not is_jax_env("CartPole-v1")


def test_neither_the_registry_nor_the_checker_imports_jax_or_gymnasium():
    code = "import sys, athlete.env.registry, athlete.env.checks.check; print({'jax', 'gymnasium'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
