"""Updates a second of TD3+BC, IQL and CQL as single-file PyTorch programs have them, in CORL's structure.

    python benchmarks/rivals/torch_offline.py TD3BC --updates 2000

Networks, batches and the numbers of critics and sampled actions are those of `benchmarks/offline_speed.py`. Data are
tensors from the start, a batch is one draw of indices, and nothing is logged; optimisers are torch's fused ones.
"""

from __future__ import annotations

import argparse
import copy
import json
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

OBS, ACTION, STEPS, BATCH, HIDDEN = 17, 6, 100_000, 256, 256
GAMMA, TAU = 0.99, 0.005


def mlp(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs)
    )


def adam(*modules: nn.Module, lr: float = 3e-4) -> torch.optim.Optimizer:
    return torch.optim.Adam([part for module in modules for part in module.parameters()], lr=lr, fused=True)


def step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def follow(target: nn.Module, online: nn.Module) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), TAU)


class Critics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = mlp(OBS + ACTION, 1), mlp(OBS + ACTION, 1)

    def forward(self, obs: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        joint = torch.cat([obs, action], dim=-1)
        return self.first(joint).squeeze(-1), self.second(joint).squeeze(-1)


class TD3BC:
    """Fujimoto & Gu 2021: policy delay 2, alpha 2.5."""

    def __init__(self) -> None:
        self.actor, self.critics = mlp(OBS, ACTION), Critics()
        self.actor_target, self.critics_target = copy.deepcopy(self.actor), copy.deepcopy(self.critics)
        self.actor_optimizer, self.critic_optimizer = adam(self.actor), adam(self.critics)
        self.count = 0

    def update(self, obs, action, reward, next_obs, terminated) -> None:
        self.count += 1
        with torch.no_grad():
            noise = (torch.randn_like(action) * 0.2).clamp(-0.5, 0.5)
            next_action = (torch.tanh(self.actor_target(next_obs)) + noise).clamp(-1, 1)
            target = reward + GAMMA * (1 - terminated) * torch.minimum(*self.critics_target(next_obs, next_action))
        first, second = self.critics(obs, action)
        step(self.critic_optimizer, functional.mse_loss(first, target) + functional.mse_loss(second, target))
        if self.count % 2 == 0:
            chosen = torch.tanh(self.actor(obs))
            value = self.critics.first(torch.cat([obs, chosen], dim=-1))
            scale = 2.5 / value.abs().mean().detach()
            step(self.actor_optimizer, functional.mse_loss(chosen, action) - scale * value.mean())
            follow(self.critics_target, self.critics)
            follow(self.actor_target, self.actor)


class IQL:
    """Kostrikov et al. 2021: expectile 0.7, beta 3, a normal policy around a tanh."""

    def __init__(self) -> None:
        self.actor, self.critics, self.value = mlp(OBS, ACTION), Critics(), mlp(OBS, 1)
        self.log_std = nn.Parameter(torch.zeros(ACTION))
        self.target = copy.deepcopy(self.critics)
        self.actor_optimizer = torch.optim.Adam([*self.actor.parameters(), self.log_std], lr=3e-4, fused=True)
        self.critic_optimizer, self.value_optimizer = adam(self.critics), adam(self.value)

    def update(self, obs, action, reward, next_obs, terminated) -> None:
        with torch.no_grad():
            target_value = torch.minimum(*self.target(obs, action))
            next_value = self.value(next_obs).squeeze(-1)
        advantage = target_value - self.value(obs).squeeze(-1)
        step(self.value_optimizer, torch.mean(torch.abs(0.7 - (advantage < 0).float()) * advantage**2))
        target = reward + GAMMA * (1 - terminated) * next_value
        first, second = self.critics(obs, action)
        step(self.critic_optimizer, (functional.mse_loss(first, target) + functional.mse_loss(second, target)) / 2)
        follow(self.target, self.critics)
        weight = torch.exp(3.0 * advantage.detach()).clamp(max=100.0)
        policy = torch.distributions.Normal(torch.tanh(self.actor(obs)), self.log_std.clamp(-5, 2).exp())
        step(self.actor_optimizer, -torch.mean(weight * policy.log_prob(action).sum(-1)))


class CQL:
    """Kumar et al. 2020 on SAC: 10 actions of each of three kinds, a learned temperature."""

    def __init__(self) -> None:
        self.actor, self.critics = mlp(OBS, 2 * ACTION), Critics()
        self.target = copy.deepcopy(self.critics)
        self.log_alpha = nn.Parameter(torch.zeros(()))
        self.actor_optimizer, self.critic_optimizer = adam(self.actor, lr=1e-4), adam(self.critics, lr=1e-3)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=1e-3, fused=True)

    def sample(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = self.actor(obs).chunk(2, dim=-1)
        policy = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
        raw = policy.rsample()
        correction = 2 * (np.log(2.0) - raw - functional.softplus(-2 * raw))
        return torch.tanh(raw), (policy.log_prob(raw) - correction).sum(-1)

    def update(self, obs, action, reward, next_obs, terminated) -> None:
        chosen, log_prob = self.sample(obs)
        step(self.alpha_optimizer, -(self.log_alpha * (log_prob - ACTION).detach()).mean())
        alpha = self.log_alpha.exp().detach()
        value = torch.minimum(*self.critics(obs, chosen))
        step(self.actor_optimizer, (alpha * log_prob - value).mean())
        with torch.no_grad():
            next_action, _ = self.sample(next_obs)
            target = reward + GAMMA * (1 - terminated) * torch.minimum(*self.target(next_obs, next_action))
            many, many_next = obs.repeat_interleave(10, 0), next_obs.repeat_interleave(10, 0)
            uniform = torch.rand(10 * len(obs), ACTION) * 2 - 1
            (now, now_log_prob), (later, later_log_prob) = self.sample(many), self.sample(many_next)
            actions = torch.cat([uniform, now, later])
            density = torch.cat([torch.full((10 * len(obs),), ACTION * np.log(0.5)), now_log_prob, later_log_prob])
            seen = torch.cat([many] * 3)
        loss = torch.zeros(())
        for value, drawn in zip(self.critics(obs, action), self.critics(seen, actions), strict=True):
            table = (drawn - density).reshape(3, len(obs), 10).permute(1, 0, 2).reshape(len(obs), 30)
            loss = loss + functional.mse_loss(value, target) + 5.0 * (torch.logsumexp(table, -1) - value).mean()
        step(self.critic_optimizer, loss)
        follow(self.target, self.critics)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithm", choices=["TD3BC", "IQL", "CQL"])
    parser.add_argument("--updates", type=int, default=2000)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    data = [torch.randn(STEPS, OBS), torch.rand(STEPS, ACTION) * 2 - 1, torch.randn(STEPS), torch.randn(STEPS, OBS)]
    data.append(torch.zeros(STEPS))
    learner = {"TD3BC": TD3BC, "IQL": IQL, "CQL": CQL}[arguments.algorithm]()

    def run(updates: int) -> float:
        start = time.perf_counter()
        for _ in range(updates):
            index = torch.randint(0, STEPS, (BATCH,))
            learner.update(*(part[index] for part in data))
        return updates / (time.perf_counter() - start)

    run(max(arguments.updates // 10, 2))
    print(json.dumps({"updates_per_second": run(arguments.updates)}))


if __name__ == "__main__":
    main()
