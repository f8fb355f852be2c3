"""The baseline of the speed benchmarks: a plain GPT in PyTorch, compiled.

It has the architecture of scalejax's models (RoPE, RMSNorm, SwiGLU, no biases, untied
head) and what makes such a step fast in PyTorch: one matrix for queries, keys and
values, one for gate and up, `scaled_dot_product_attention`, `torch.compile` and fused
AdamW. It imports nothing of scalejax and runs in an environment of its own
(`make bench`).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class Shape(NamedTuple):
    """The sizes of a training step."""

    width: int
    depth: int
    head_size: int
    mlp_width: int
    vocabulary: int
    sequences: int
    length: int


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, shape: Shape):
        super().__init__()
        d, f = shape.width, shape.mlp_width
        self.head_size = shape.head_size
        self.attention_norm = nn.RMSNorm(d, eps=1e-6)
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.output = nn.Linear(d, d, bias=False)
        self.mlp_norm = nn.RMSNorm(d, eps=1e-6)
        self.gate_up = nn.Linear(d, 2 * f, bias=False)
        self.down = nn.Linear(f, d, bias=False)

    def forward(self, x, cos, sin):
        b, t, d = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(b, t, 3, -1, self.head_size)
        q, k, v = (part.squeeze(2).transpose(1, 2) for part in qkv.split(1, dim=2))
        y = F.scaled_dot_product_attention(
            rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True
        )
        x = x + self.output(y.transpose(1, 2).reshape(b, t, d))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class GPT(nn.Module):
    """Token ids [b, t] and targets [b, t] to the mean cross-entropy."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.RMSNorm(shape.width, eps=1e-6)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        frequencies = 10_000.0 ** (-torch.arange(0, shape.head_size, 2) / shape.head_size)
        angles = torch.arange(shape.length)[:, None] * frequencies
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        self.width = shape.width

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def rotate(x, cos, sin):
    """Rotary position embedding of x [b, heads, t, head size]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Trainer:
    """A compiled model and its optimizer."""

    def __init__(self, shape: Shape, *, learning_rate: float, beta2: float, seed: int = 0):
        self.model = GPT(shape)
        self.named = dict(self.model.named_parameters())
        self.loss = torch.compile(self.model)
        self.restart(learning_rate=learning_rate, beta2=beta2, seed=seed)

    def restart(self, *, learning_rate: float, beta2: float, seed: int = 0) -> None:
        """Begin again with new weights; what was compiled is kept.

        The initial values and what decays are scalejax's, so that both sides of a sweep
        end with equal losses.
        """
        torch.manual_seed(seed)
        for name, parameter in self.named.items():
            if parameter.ndim == 1:
                nn.init.ones_(parameter)
                continue
            fixed = {"embedding.weight": 1.0, "head.weight": 0.02}
            nn.init.normal_(parameter, std=fixed.get(name, 0.5 / math.sqrt(parameter.shape[1])))
        plain = [p for name, p in self.named.items() if p.ndim == 1 or "embedding" in name]
        decayed = [p for p in self.named.values() if all(p is not other for other in plain)]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": plain, "weight_decay": 0.0}],
            lr=learning_rate,
            betas=(0.9, beta2),
            weight_decay=0.1,
            fused=True,
        )

    def set_rate(self, learning_rate: float) -> None:
        """Use another learning rate from the next step on."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def step(self, rows: torch.Tensor) -> torch.Tensor:
        """Train on token rows [b, t + 1] and return the loss."""
        loss = self.loss(rows[:, :-1], rows[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(self.named.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()
