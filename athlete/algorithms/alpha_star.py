"""The league of AlphaStar (Vinyals et al. 2019, doi:10.1038/s41586-019-1724-z), on PPO, for games of two.

Three kinds of players learn, each against opponents of its own ("League training" in the methods):

- the main agent: 35% of its games are against itself, 50% prioritised fictitious self-play (PFSP) against all past
  players, 15% against past players that it has forgotten how to beat, and past exploiters that beat it;
- main exploiters: against the present main agent, to find its weaknesses; one that wins fewer than 10% of these games
  plays against past main agents that are as strong as itself instead;
- league exploiters: PFSP against all past players, to find weaknesses of all of them.

PFSP draws the past player B for the learner A in proportion to `f(P[A beats B])`: f is `(1 - p)^2` for the main agent,
`p (1 - p)` where opponents are to be as strong as oneself, `min(1/2, 1 - p)` for league exploiters. A learner becomes a
past player itself when it beats all opponents that it is for more often than a threshold, or after so long. Exploiters
then begin anew from the league's first policy: main exploiters always, league exploiters in one of four cases. Win
rates count draws as half a win and forget by 1% a game, as the paper's pseudocode does.

Departures:

- there is one main agent; the learners are PPO, with no human data, and start from random parameters;
- a learner learns from its own side of a game;
- one drawn game against each opponent stands in for those not played yet;
- the 15% are against the forgotten and all exploiters alike, where the pseudocode tries main exploiters first, then
  what the main agent was, less the latest of these that it beats less and less;
- there is room for `max_snapshots` past players: where it is full, the one that all beat most surely makes room;
- each learner has `num_matches` opponents at a time; the next ones are drawn when the games against these were played.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from athlete.algorithms.ppo import PPOConfig
from athlete.combine.seating import Seats
from athlete.combine.side_by_side import SideBySide
from athlete.combine.team import Member, Team
from athlete.core import AGENT_STEPS, Agent, Array, Key, Memory, Spec, Transition, Tree, Which, hyper
from athlete.core.ranges import Fraction, NonNegativeInt, PositiveInt
from athlete.ops.tree import where
from athlete.settings.families import OnPolicyConfig

FORGETTING = 0.99  # of a win rate, by each game
# How likely a learner begins anew when it has become a past player.
BEGINS_ANEW = {"main": 0.0, "main_exploiter_": 1.0, "league_exploiter_": 0.25}


class LeagueState(NamedTuple):
    """L learners, P places for past players, the present main agent as opponent P, K matches of each learner."""

    learners: Tree  # [L, ...], the main agent first
    beginner: Tree  # the main agent as it was first, which exploiters begin from
    past: Tree  # [P, ...] of what acts
    maker: Array  # int32 [P]: the learner that became it; -1 where the place is free
    points: Array  # [L, P + 1]: of late games, 1 for a win and 1/2 for a draw
    games: Array  # [L, P + 1]
    opponent: Array  # int32 [L, K]
    played: Array  # [L, K]: games against it
    age: Array  # int32 [L]: trajectories since a learner last became a past player


class Scores(NamedTuple):
    """Of the running episodes `[B]`."""

    margin: Array  # by which the learner is ahead in rewards
    counts: Array  # bool: the opponent is still the one that it began with


@hyper
class AlphaStar(Agent):
    """The league as one agent: L learners, each with K opponents at a time.

    In row r learner `r % L` sits on the first seat and its opponent `r // L % K` on the second. Learners are called
    `main`, `main_exploiter_0`, ..., `league_exploiter_0`, ...; metrics of PPO are those of the main agent.
    """

    joint: ClassVar[bool] = True

    agent: Agent = None  # type: ignore[assignment]  # of each learner, bound to what one seat sees
    num_learning_main_exploiters: NonNegativeInt = 1
    num_learning_league_exploiters: NonNegativeInt = 1
    num_matches: PositiveInt = 4  # opponents that each learner has at a time
    max_snapshots: PositiveInt = 32  # places for past players
    win_rate_threshold_for_new_snapshot: Fraction = 0.7  # against all that a learner is to beat
    min_trajectories_per_snapshot: PositiveInt = 10  # between two snapshots of one learner
    max_trajectories_per_snapshot: PositiveInt = 100
    updates: int = 1
    spec: Spec = None  # type: ignore[assignment]  # known once bound

    @property
    def names(self) -> tuple[str, ...]:
        """Of the learners."""
        main = (f"main_exploiter_{i}" for i in range(self.num_learning_main_exploiters))
        league = (f"league_exploiter_{i}" for i in range(self.num_learning_league_exploiters))
        return ("main", *main, *league)

    @property
    def learners(self) -> SideBySide:
        return SideBySide(self.agent, len(self.names))

    @property
    def team(self) -> Team:
        """Learners on the first seat and opponents on the second, in the order of rows."""
        ((group, _),) = self.spec.groups
        opponents = SideBySide(self.agent, len(self.names) * self.num_matches)
        seats = [Seats(((group, (seat,)),)) for seat in range(2)]
        members = Member("learners", self.learners, seats[0]), Member("opponents", opponents, seats[1], trained=False)
        return Team(members).bind(self.spec)

    @property
    def memory(self) -> Memory:  # type: ignore[override]
        return self.team.memory

    def bind(self, spec: Spec) -> Self:
        require_game_of_two("AlphaStar", spec)
        return dataclasses.replace(self, spec=spec)

    def init(self, key: Key) -> LeagueState:
        """The league begins with one past player: the main agent that has not learned."""
        state, places = self.learners.init(key), np.arange(self.max_snapshots)
        number, matches = len(self.names), (len(self.names), self.num_matches)
        main = _taken(self.learners.view(state, jnp.zeros(())), 0)
        past = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self.max_snapshots, *leaf.shape)), main)
        nothing = jnp.zeros((number, self.max_snapshots + 1))
        maker = jnp.where(places == 0, 0, -1).astype(jnp.int32)
        opponent, played, age = jnp.zeros(matches, jnp.int32), jnp.zeros(matches), jnp.zeros(number, jnp.int32)
        beginner = jax.tree.map(jnp.copy, _taken(state, 0))
        return LeagueState(state, beginner, past, maker, nothing, nothing.copy(), opponent, played, age)

    def view(self, state: LeagueState, progress: Array) -> Tree:
        learners = self.learners.view(state.learners, progress)
        opponent = state.opponent.T.ravel()  # match by match, and in each of them learner by learner, as rows are
        past = _taken(state.past, jnp.minimum(opponent, self.max_snapshots - 1))
        main = jax.tree.map(lambda leaf: leaf[:1], learners)
        return {"learners": learners, "opponents": where(opponent == self.max_snapshots, main, past)}

    def start(self, view: Tree, rows: int, key: Key) -> Tree:
        return self.team.start(view, rows, key)

    def act(self, view: Tree, carry: Tree, obs: Tree, first: Array, key: Key, explore: bool = True) -> tuple:
        return self.team.act(view, carry, obs, first, key, explore)

    def accumulators(self, rows: int) -> Tree:
        return {"team": self.team.accumulators(rows), "scores": Scores(jnp.zeros(rows), jnp.ones(rows, bool))}

    def learn(
        self,
        state: LeagueState,
        store: Tree,
        accumulators: Tree,
        trajectory: Transition,
        key: Key,
        progress: Array,
        learning_now: Which = True,
        sample_async: bool = False,
    ) -> tuple[LeagueState, Tree, Tree, dict[str, Array]]:
        """Every learner from its games; then who becomes a past player, and who meets whom."""
        learn_key, begin_key, match_key = jax.random.split(key, 3)
        before = {"learners": state.learners}
        after, store, team, found = self.team.learn(
            before, store, accumulators["team"], trajectory, learn_key, progress, learning_now
        )
        scores, points, games = self._results(accumulators["scores"], trajectory)
        state = self._recorded(state._replace(learners=after["learners"]), points, games)
        views = self.learners.view(state.learners, progress)
        for number in range(len(self.names)):
            state = self._with_snapshot(state, number, views, jax.random.fold_in(begin_key, number))
        state, ends = self._with_opponents(state, trajectory.first.shape[1], match_key)
        scores = scores._replace(counts=scores.counts & ~ends)
        metrics = {
            name.removeprefix("learners/"): value for name, value in found.items() if not name.endswith(AGENT_STEPS)
        }
        rates = jnp.mean(win_rates(state), axis=1, where=self._rivals(state))
        metrics |= {f"{name}/win_rate": rates[number] for number, name in enumerate(self.names)}
        metrics["snapshots"] = jnp.sum(state.maker >= 0, dtype=jnp.float32)
        return state, store, {"team": team, "scores": scores}, metrics

    def _results(self, scores: Scores, trajectory: Transition) -> tuple[Scores, Array, Array]:
        """The running scores after a trajectory; points and games `[L, K]` of the episodes that ended in it."""

        def step(scores: Scores, inputs: tuple[Array, Array, Array]) -> tuple[Scores, tuple[Array, Array]]:
            first, reward, done = inputs
            margin = jnp.where(first, 0.0, scores.margin) + reward[:, 0] - reward[:, 1]
            counts = scores.counts | first
            points = jnp.where(jnp.abs(margin) < 1e-4, 0.5, margin > 0)
            return Scores(margin, counts), (points * (done & counts), (done & counts).astype(jnp.float32))

        done = trajectory.terminated | trajectory.truncated
        scores, found = jax.lax.scan(step, scores, (trajectory.first, trajectory.reward, done))
        points, games = (jnp.sum(part.reshape(-1, self.num_matches, len(self.names)), axis=0).T for part in found)
        return scores, points, games

    def _recorded(self, state: LeagueState, points: Array, games: Array) -> LeagueState:
        met = jax.nn.one_hot(state.opponent, self.max_snapshots + 1)  # [L, K, P + 1]
        new_points, new_games = (jnp.einsum("lk,lkp->lp", part, met) for part in (points, games))
        kept = FORGETTING**new_games
        return state._replace(
            points=state.points * kept + new_points,
            games=state.games * kept + new_games,
            played=state.played + games,
            age=state.age + 1,
        )

    def _past(self, state: LeagueState) -> Array:
        """Which opponents `[P + 1]` are past players."""
        return jnp.append(state.maker >= 0, False)

    def _rivals(self, state: LeagueState) -> Array:
        """Whom each learner is to beat, bool `[L, P + 1]`."""
        past, main = self._past(state), jnp.arange(self.max_snapshots + 1) == self.max_snapshots
        return jnp.stack([main if name.startswith("main_exploiter") else past for name in self.names])

    def _with_snapshot(self, state: LeagueState, number: int, views: Tree, key: Key) -> LeagueState:
        """The league after a learner became a past player, where it is ready for that."""
        name, rates = self.names[number], win_rates(state)
        beats_all = jnp.min(jnp.where(self._rivals(state)[number], rates[number], 1.0)) > (
            self.win_rate_threshold_for_new_snapshot
        )
        age = state.age[number]
        ready = (beats_all & (age >= self.min_trajectories_per_snapshot)) | (age >= self.max_trajectories_per_snapshot)
        free, beaten = state.maker < 0, jnp.mean(rates[:, :-1], axis=0)
        place = jnp.where(
            ready, jnp.argmax(jnp.where(free.any(), free, beaten)), self.max_snapshots + 1
        )  # else nowhere
        past = jax.tree.map(lambda then, now: then.at[place].set(now[number], mode="drop"), state.past, views)
        points, games = (part.at[:, place].set(0.0, mode="drop") for part in (state.points, state.games))
        anew = ready & (jax.random.uniform(key) < BEGINS_ANEW[name.rstrip("0123456789")])
        learners = jax.tree.map(
            lambda now, then: now.at[number].set(jnp.where(anew, then, now[number])), state.learners, state.beginner
        )
        points, games = (part.at[number].multiply(jnp.where(anew, 0.0, 1.0)) for part in (points, games))
        return state._replace(
            learners=learners,
            past=past,
            maker=state.maker.at[place].set(number, mode="drop"),
            points=points,
            games=games,
            played=jnp.where(state.opponent == place, jnp.inf, state.played),  # whom they played is no more
            age=state.age.at[number].set(jnp.where(ready, 0, age)),
        )

    def _with_opponents(self, state: LeagueState, rows: int, key: Key) -> tuple[LeagueState, Array]:
        """The league after the next opponents were drawn in matches whose games were played: one in each of the rows.

        Also the rows whose opponent was drawn anew, bool `[rows]`. The key is split in two: for the kind of the main
        agent's next opponent, and for drawing opponents.
        """
        kind_key, draw_key = jax.random.split(key)
        number = rows // state.opponent.size
        ends = state.played >= number
        drawn = jax.random.categorical(draw_key, jnp.log(self._weights(state, kind_key))).astype(jnp.int32)
        opponent, played = jnp.where(ends, drawn, state.opponent), jnp.where(ends, 0.0, state.played)
        return state._replace(opponent=opponent, played=played), jnp.tile(ends.T.ravel(), number)

    def _weights(self, state: LeagueState, key: Key) -> Array:
        """How likely each opponent is next, `[L, K, P + 1]`, up to a factor."""
        rates, past = win_rates(state), self._past(state)
        own = past & (jnp.append(state.maker, -1) == 0)  # of the main agent
        main = (jnp.arange(self.max_snapshots + 1) == self.max_snapshots).astype(jnp.float32)
        hard, even, capped = (1 - rates) ** 2, rates * (1 - rates), jnp.minimum(0.5, 1 - rates)
        some = 1e-6 * past  # so that there is always one
        lost = past & (rates[0] < jnp.where(own, 0.7, 0.3))
        verified = jnp.where(lost.any(), lost * hard[0], main)
        coin = jax.random.uniform(key, (self.num_matches, 1))
        of_main = jnp.where(coin < 0.5, past * hard[0], jnp.where(coin < 0.65, verified, main))
        of_main_exploiter = jnp.where(rates[:, -1:] > 0.1, main, own * even)
        weights = [
            of_main if name == "main" else of_main_exploiter[i] if name.startswith("main") else past * capped[i]
            for i, name in enumerate(self.names)
        ]
        shape = (self.num_matches, self.max_snapshots + 1)
        return jnp.stack([jnp.broadcast_to(part + some, shape) for part in weights])


def win_rates(state: LeagueState) -> Array:
    """Of each learner against each opponent `[L, P + 1]`, with one drawn game more: 1/2 of those not met yet."""
    return (state.points + 0.5) / (state.games + 1.0)


def require_game_of_two(algorithm: str, spec: Spec) -> None:
    """Raise ValueError unless it is a game of two agents with equal spaces."""
    if [group.size for _, group in spec.groups] != [2]:
        agents = ", ".join(f"{group.size} of {name!r}" for name, group in spec.groups)
        raise ValueError(
            f"{algorithm} learns games of two agents with equal spaces, and this environment has "
            f"{agents or 'one agent'}"
        )


def _taken(tree: Tree, number: Any) -> Tree:
    return jax.tree.map(lambda leaf: leaf[number], tree)


class AlphaStarConfig(OnPolicyConfig):
    """Configuration of the league: `AlphaStarConfig().environment("TicTacToe-v0").build()`.

    The settings of PPO are those of every learner.
    """

    algorithm_name = "AlphaStar"
    summary = "a league of PPO learners, past players and exploiters, in games of two"
    paper = "Vinyals et al. 2019, doi:10.1038/s41586-019-1724-z"
    agent_class = AlphaStar
    fields_set_elsewhere = (*OnPolicyConfig.fields_set_elsewhere, "agent")
    defaults: ClassVar[dict[str, Any]] = {
        "shuffle_seats": True,
        "num_envs_per_worker": 48,
        "train_batch_size": 6144,
        "normalize_rewards": False,
    }

    @classmethod
    def _agent_defaults(cls) -> dict[str, Any]:
        return PPOConfig._agent_defaults() | super()._agent_defaults()

    @classmethod
    def _agent_hints(cls) -> dict[str, Any]:
        return PPOConfig._agent_hints() | super()._agent_hints()

    def make_agent(self, spec: Spec) -> Agent:
        """The league. Raises ValueError where its rows are not as many for each match, or it is no game of two."""
        league = AlphaStar(**{name: self.get(name) for name in super()._agent_defaults()})
        require_game_of_two("AlphaStar", spec)
        ((_, group),) = spec.groups
        learners, matches, rows = len(league.names), len(league.names) * league.num_matches, self.rows()
        if rows % matches:
            raise ValueError(
                f"AlphaStar: {rows} environments cannot be shared among {matches} matches, {league.num_matches} for "
                f"each of {learners} learners; make num_envs_per_worker a multiple of {matches}"
            )
        learner = PPOConfig()
        learner._values |= {name: value for name, value in self._values.items() if name in learner._values}
        learner = learner.sized(rows // learners, 0, self.fragment_length()).with_horizon(self.horizon())
        agent = learner.make_agent(Spec(group.obs, group.action))
        return dataclasses.replace(league, agent=agent).bind(spec)
