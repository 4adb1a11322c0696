"""Training over the network: what a client plays is what the training learns from, and silence hangs nobody."""

from __future__ import annotations

import contextlib
import http.client
import threading
from concurrent.futures import ThreadPoolExecutor

import gymnasium
import numpy as np
import pytest

from athlete import spaces
from athlete.algorithms import get_config_class
from athlete.core import Source, Spec, Step
from athlete.env.wrappers.logged_actions import LOGGED_ACTION, LoggedActionsSource
from athlete.env.wrappers.previous import Previous, PreviousStepSource
from athlete.loops.output import EpisodeOutput, OutputSource
from athlete.memory.ring import ring_take
from athlete.serve import PolicyClient, PolicyServerInput
from athlete.serve.external import CommandError, Exchange, ExternalEnv

BOX, TWO = gymnasium.spaces.Box(-10, 10, (2,)), gymnasium.spaces.Discrete(2, start=5)


class Corridor:
    """A simulator that cannot be called: the right end is paid, and reached by action 6 alone."""

    def __init__(self):
        self.place, self.steps = 0.0, 0

    def seen(self):
        return np.array([self.place, self.steps], np.float32)

    def advance(self, action):
        assert action in (5, 6)
        self.place += 1.0 if action == 6 else -1.0
        self.steps += 1
        return float(self.place == 3.0), self.place == 3.0, self.steps == 8


def play(client, episodes, returns):
    for _ in range(episodes):
        simulator, total = Corridor(), 0.0
        episode = client.start_episode()
        over = cut = False
        while not (over or cut):
            action = client.get_action(episode, simulator.seen())
            reward, over, cut = simulator.advance(action)
            client.log_returns(episode, reward)
            total += reward
        client.end_episode(episode, simulator.seen(), truncated=not over)
        returns.append(total)


@pytest.fixture
def server():
    with PolicyServerInput(BOX, TWO, port=0) as made:
        yield made


def test_a_training_learns_from_what_clients_play(server):
    config = get_config_class("PPO")().environment(server).rollouts(num_envs_per_worker=2).debugging(seed=0)
    config.training(train_batch_size=128, minibatch_size=64, lr=3e-3, model={"fcnet_hiddens": [16]})
    returns, over = [], threading.Event()

    def keep_playing():
        client = PolicyClient(f"http://127.0.0.1:{server.port}")
        try:
            while not over.is_set():
                play(client, 1, returns)
        except ValueError as error:
            assert "the training has ended" in str(error)

    with ThreadPoolExecutor(2) as clients:
        playing = [clients.submit(keep_playing) for _ in range(2)]
        with config.build() as algorithm:
            results = [algorithm.train() for _ in range(8)]
        client = PolicyClient(f"http://127.0.0.1:{server.port}")
        with pytest.raises(ValueError, match="log_action: PPO learns from its own actions only; use get_action"):
            client.log_action(client.start_episode(), [0.0, 0.0], 6)
        over.set()
        server.exchange.closed.set()
        for client in playing:
            client.result(timeout=30)
    counted = sum(result["episodes_this_iter"] for result in results)
    assert 0 < counted <= len(returns) <= counted + 4
    assert results[-1]["episode_reward_max"] == 1.0
    assert np.mean(returns[-20:]) > np.mean(returns[:20]), "it has learned"


def play_by_chance(client, played, rng):
    """Episodes of a simulator that chooses all actions itself: `played` are (observation, action)."""
    with contextlib.suppress(ValueError):  # until the training has ended
        while True:
            simulator, episode = Corridor(), client.start_episode()
            over = cut = False
            while not (over or cut):
                observation, action = simulator.seen(), int(rng.integers(5, 7))
                played.append((observation, action))
                client.log_action(episode, observation, action)
                reward, over, cut = simulator.advance(action)
                client.log_returns(episode, reward)
            client.end_episode(episode, simulator.seen(), truncated=not over)


def test_a_memory_holds_the_actions_that_clients_log_and_a_policy_is_learned_from_them(server):
    config = get_config_class("DQN")().environment(server).debugging(seed=0)
    config.training(train_batch_size=64, num_steps_sampled_before_learning_starts=64, lr=3e-3, gamma=0.9)
    config.training(model={"fcnet_hiddens": [16]}, replay_buffer_config={"type": "ReplayBuffer", "capacity": 2000})
    config.training(target_network_update_freq=50).exploration(exploration_config={"final_epsilon": 1.0})
    config.reporting(min_sample_timesteps_per_iteration=200)
    played = []
    with ThreadPoolExecutor(1) as clients:
        client = PolicyClient(f"http://127.0.0.1:{server.port}")
        playing = clients.submit(play_by_chance, client, played, np.random.default_rng(3))
        with config.build() as algorithm:
            for _ in range(3):
                steps = algorithm.train()["timesteps_total"]
            ring = algorithm.run.store
            kept = ring_take(ring, np.arange(steps), np.zeros(steps, int), 1)
            decided = [algorithm.compute_single_action([n, n], explore=False) for n in (0.0, 1.0, 2.0)]
        server.exchange.closed.set()
        playing.result(timeout=30)
    observations, actions = map(np.array, zip(*played[:steps], strict=True))
    assert (kept.action[0] == actions - 5).all() and (kept.obs[0] == observations).all()
    assert decided == [6, 6, 6], "the way to the right end"


def test_a_logged_action_is_the_one_of_its_observation_alone():
    exchange, told = Exchange(BOX, TWO, idle_timeout_s=5.0), []
    exchange.tell_clients(None)
    env = ExternalEnv(exchange)

    def client():
        episode = exchange.start_episode()
        exchange.log_action(episode, [0.0, 0.0], 6)
        told.append(exchange.get_action(episode, [1.0, 1.0]))
        exchange.log_action(episode, [2.0, 2.0], 5)
        exchange.end_episode(episode, [3.0, 3.0])

    with ThreadPoolExecutor(1) as pool:
        playing = pool.submit(client)
        env.reset()
        infos = [env.step(action)[-1] for action in (5, 6, 6)]
        playing.result(timeout=5)
    assert infos == [{LOGGED_ACTION: 6}, {}, {LOGGED_ACTION: 5}] and told == [6]


def test_log_action_waits_until_there_is_a_training_and_is_refused_where_that_does_not_learn_from_it():
    exchange = Exchange(BOX, TWO, idle_timeout_s=5.0)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(exchange.log_action, exchange.start_episode(), [0.0, 0.0], 6)
        with pytest.raises(TimeoutError):
            asked.result(timeout=0.05)
        exchange.tell_clients("an evaluation plays the policy's actions; use get_action")
        with pytest.raises(CommandError, match="an evaluation plays"):
            asked.result(timeout=5)


@pytest.mark.parametrize(
    ("space", "action", "message"),
    [
        (gymnasium.spaces.Box(-2, 2, (2,)), [0.0, 2.5], r"action: \[0.  2.5\] is outside Box"),
        (gymnasium.spaces.Box(-2, 2, (2,)), [0.0, None], "is not finite"),
        (gymnasium.spaces.MultiBinary(2), [1, 2], r"action: \[1 2\] is outside MultiBinary"),
        (gymnasium.spaces.Tuple([TWO, gymnasium.spaces.Box(0, 1)]), [5, [-1.0]], r"action\[1\]: .* outside Box"),
        (gymnasium.spaces.Dict(a=TWO), {"b": 5}, r"action: expected the entries \['a'\]"),
    ],
)
def test_an_action_outside_of_its_space_is_not_logged(space, action, message):
    exchange = Exchange(BOX, space, idle_timeout_s=5.0)
    with pytest.raises(CommandError, match=message):
        exchange.log_action(exchange.start_episode(), [0.0, 0.0], action)


class Told(Source):
    """Two rows, of which one took an action of its own."""

    rows, spec = 2, Spec(spaces.Box(-1.0, 1.0, (1,)), spaces.Box(-2.0, 2.0, (1,)))

    def step(self, action, key):
        obs, flag = np.zeros((2, 1), np.float32), np.zeros(2, bool)
        return Step(obs, np.zeros(2, np.float32), flag, flag, [{}, {LOGGED_ACTION: np.array([1.0], np.float32)}])


def test_what_is_written_and_shown_of_a_step_is_the_action_that_was_taken():
    given = np.array([[0.25], [0.25]], np.float32)
    source = LoggedActionsSource(Told())
    shown = PreviousStepSource(source, Previous(action=True)).step(given, None)
    assert source.taken.tolist() == [[0.25], [0.5]] and given.tolist() == [[0.25], [0.25]]
    assert shown.obs[1].tolist() == [[0.25], [0.5]]
    assert list(shown.info) == [{}, {}], "it is no metric of the user's"
    written = []
    output = EpisodeOutput(2, source.spec.action, written.append, most_bytes=1)
    writing = OutputSource(source, output)
    writing._obs = np.zeros((2, 1), np.float32)
    writing.step(given, None)
    output.cut()
    output.flush()
    assert written[0].action.tolist() == [[0.5], [1.0]]


def test_rewards_between_two_observations_belong_to_the_action_between():
    exchange = Exchange(BOX, TWO, idle_timeout_s=5.0)
    env, found = ExternalEnv(exchange), []

    def client():
        episode = exchange.start_episode("mine")
        found.append(exchange.get_action(episode, [0.0, 0.0]))
        exchange.log_returns(episode, 1.5)
        exchange.log_returns(episode, 0.5)
        found.append(exchange.get_action(episode, [1.0, 1.0]))
        exchange.log_returns(episode, -1.0)
        exchange.end_episode(episode, [2.0, 2.0])

    thread = threading.Thread(target=client)
    thread.start()
    assert env.reset()[0].tolist() == [0.0, 0.0]
    observation, reward, terminated, truncated, _ = env.step(5)
    assert (observation.tolist(), reward, terminated, truncated) == ([1.0, 1.0], 2.0, False, False)
    observation, reward, terminated, truncated, _ = env.step(6)
    assert (observation.tolist(), reward, terminated, truncated) == ([2.0, 2.0], -1.0, True, False)
    thread.join()
    assert found == [5, 6]


def test_an_episode_whose_client_falls_silent_is_cut_off_and_the_next_one_played():
    exchange = Exchange(BOX, TWO, idle_timeout_s=0.05)
    env = ExternalEnv(exchange)
    episode = exchange.start_episode()
    answers = ThreadPoolExecutor(2)
    asked = answers.submit(exchange.get_action, episode, [1.0, 2.0])
    env.reset()
    observation, reward, terminated, truncated, _ = env.step(5)
    assert asked.result(timeout=5) == 5
    assert (observation.tolist(), reward, terminated, truncated) == ([1.0, 2.0], 0.0, False, True)
    with pytest.raises(CommandError, match="there is no episode"):
        exchange.get_action(episode, [0.0, 0.0])
    other = exchange.start_episode()
    answers.submit(exchange.get_action, other, [3.0, 3.0])
    assert env.reset()[0].tolist() == [3.0, 3.0]
    exchange.closed.set()
    answers.shutdown()


def test_what_was_paid_before_a_client_fell_silent_is_kept():
    exchange = Exchange(BOX, TWO, idle_timeout_s=0.2)
    env, episode, answers = ExternalEnv(exchange), exchange.start_episode(), ThreadPoolExecutor(1)
    asked = answers.submit(exchange.get_action, episode, [1.0, 2.0])
    env.reset()
    asked.add_done_callback(lambda _: exchange.log_returns(episode, 3.0))
    _, reward, terminated, truncated, _ = env.step(5)
    assert (reward, terminated, truncated) == (3.0, False, True)
    answers.shutdown()


def test_an_episode_that_is_begun_and_not_played_is_given_up(caplog):
    exchange = Exchange(BOX, TWO, idle_timeout_s=0.05)
    env, slow, answers = ExternalEnv(exchange), exchange.start_episode("slow"), ThreadPoolExecutor(2)
    resetting = answers.submit(env.reset)
    while "episode slow: its client has said nothing" not in caplog.text:
        assert not resetting.done()
    with pytest.raises(CommandError, match="there is no episode 'slow'"):
        exchange.get_action(slow, [0.0, 0.0])
    answers.submit(exchange.get_action, exchange.start_episode(), [3.0, 3.0])
    assert resetting.result(timeout=5)[0].tolist() == [3.0, 3.0]
    exchange.closed.set()
    answers.shutdown()


@pytest.mark.parametrize("length", ["-1", "many", str(2**24 + 1), "9" * 5000])
def test_a_body_of_no_known_length_is_not_read(server, length):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.putrequest("POST", "/start_episode")
    connection.putheader("Content-Length", length)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413 and b"Content-Length: expected a whole number of at most" in answer.read()
    connection.close()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (lambda client: client.get_action("none", [0.0, 0.0]), "get_action: there is no episode 'none'"),
        (lambda client: client.get_action(client.start_episode(), [0.0]), r"expected shape \(2,\)"),
        (lambda client: client.log_action("none", [0.0, 0.0], 5), "log_action: there is no episode 'none'"),
        (
            lambda client: client.log_action(client.start_episode(), [0.0, 0.0], 7),
            r"action: 7 is outside Discrete\(n=2",
        ),
        (lambda client: client.log_action(client.start_episode(), [0.0, 0.0], 5.5), "action: 5.5 is no element of"),
        (lambda client: client.log_action(client.start_episode(), [0.0, 0.0], [5]), r"action: expected shape \(\)"),
        (lambda client: client.log_returns(client.start_episode(), float("nan")), "expected a finite number"),
        (
            lambda client: client.end_episode(client.start_episode(), [0.0, 0.0], "no"),
            "expected true or false, got 'no'",
        ),
        (lambda client: [client.start_episode("a") for _ in range(2)], "'a' is being played already"),
        (lambda client: client._send("run_code"), "there is no command 'run_code'"),
        (lambda client: client._send("start_episode", code="x"), "start_episode takes episode_id"),
        (lambda client: client.start_episode(training_enabled=False), "athlete serve"),
    ],
)
def test_a_command_that_cannot_be_done_is_told_why(server, command, message):
    with pytest.raises(ValueError, match=message):
        command(PolicyClient(f"http://127.0.0.1:{server.port}"))


def test_what_is_not_served_is_said():
    with pytest.raises(ValueError, match="actions are computed where the training is"):
        PolicyClient("http://localhost:9900", inference_mode="local")


def test_others_than_this_machine_need_a_token():
    with pytest.raises(ValueError, match="need a token"):
        PolicyServerInput(BOX, TWO, "0.0.0.0", port=0)
    with PolicyServerInput(BOX, TWO, port=0, token="a secret of mine") as server:
        address = f"http://127.0.0.1:{server.port}"
        with pytest.raises(ValueError, match="send the token"):
            PolicyClient(address).start_episode()
        assert PolicyClient(address, token="a secret of mine").start_episode()
