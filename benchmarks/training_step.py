"""What the library costs a training step: scalejax's compiled step against the same step written by hand in plain JAX.

    python benchmarks/training_step.py

The baseline is a dict of arrays without Flax, optax, mesh or guard against a loss that is not finite; batch, clipping, numerics
are the same, and the losses of three steps must agree to 1e-5. Time is CPU time of this process on one core, in turns; a ratio is
the median over turns. Good: below 1.20 at width 112 and above; at width 32 below 1.15 where glibc keeps its memory
(MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_MMAP_THRESHOLD_=1000000000), up to 1.35 where it hands it back after every step and
faults it in again; below 2 for the first call (tracing, compilation, one step; one sample).
"""

import functools
import os
import time

if hasattr(os, "sched_setaffinity"):  # before jax starts its threads
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
import numpy as np

from scalejax import Data, Model, Optimizer, Placement, Run
from scalejax.optim.schedules import constant
from scalejax.training.sharding import make_mesh
from scalejax.training.step import init_state, make_train_step

SIZES = {
    "least": (32, 2, 128),
    "forecast": (112, 2, 128),
    "larger": (256, 4, 256),
}  # width, depth, sequence length
SEQUENCES, TURNS, CPU_SECONDS = 4, 9, 0.25  # CPU_SECONDS of steps in every turn
MESH = make_mesh(Placement())
ADAMW = Optimizer(learning_rate=0.002, beta2=0.98, weight_decay=0.1, decay="standard")


def norm(x, gain):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * gain


def rotate(x):
    t, h = x.shape[1], x.shape[3]
    angle = np.arange(t)[:, None] * 10_000.0 ** (-np.arange(0, h, 2) / h)
    cos, sin = np.cos(angle)[:, None].astype(np.float32), np.sin(angle)[:, None].astype(np.float32)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def loss_of(w, rows, model):
    """Mean cross-entropy, every product on one matrix of tokens x features."""
    b, t, heads = rows.shape[0], rows.shape[1] - 1, (model.heads, model.head_size)
    causal = np.tril(np.ones((t, t), bool))
    x = w["embedding"][rows[:, :-1].reshape(-1)]
    for i in range(model.depth):
        y = norm(x, w[f"{i}/attention_norm"])
        q, k, v = (
            (y @ w[f"{i}/{name}"]).reshape(b, t, *heads) for name in ("query", "key", "value")
        )
        scores = jnp.einsum("btnh,bsnh->bnts", rotate(q) * model.head_size**-0.5, rotate(k))
        weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), -1)
        x += jnp.einsum("bnts,bsnh->btnh", weights, v).reshape(b * t, -1) @ w[f"{i}/output"]
        y = norm(x, w[f"{i}/mlp_norm"])
        x += (jax.nn.silu(y @ w[f"{i}/gate"]) * (y @ w[f"{i}/up"])) @ w[f"{i}/down"]
    logits = norm(x, w["norm"]) @ w["head"]
    hit = rows[:, 1:].reshape(-1, 1) == np.arange(model.vocabulary)
    return jnp.mean(jax.nn.logsumexp(logits, -1) - jnp.sum(logits, -1, where=hit))


@functools.partial(jax.jit, static_argnums=3, donate_argnums=0)
def plain_step(state, rows, rate, model):
    w, m, v, step = state
    loss, g = jax.value_and_grad(loss_of)(w, rows, model)
    length = jnp.sqrt(sum(jnp.sum(x * x) for x in g.values()))
    g = {name: x * jnp.minimum(1, ADAMW.clip / length) for name, x in g.items()}
    step += 1
    m = {name: ADAMW.beta1 * m[name] + (1 - ADAMW.beta1) * x for name, x in g.items()}
    v = {name: ADAMW.beta2 * v[name] + (1 - ADAMW.beta2) * x * x for name, x in g.items()}
    m_scale, v_scale = 1 / (1 - ADAMW.beta1**step), 1 / (1 - ADAMW.beta2**step)
    for name, x in w.items():
        decay = 0 if "norm" in name or name == "embedding" else ADAMW.weight_decay
        w[name] = x - rate * (
            m[name] * m_scale / (jnp.sqrt(v[name] * v_scale) + ADAMW.epsilon) + decay * x
        )
    return (w, m, v, step), loss


def plain_state(params, model):
    w = {name: params[name] for name in ("embedding", "head")} | {"norm": params["norm"]["gain"]}
    for i, block in params["blocks"].items():
        attention = block["attention"]
        w |= {
            f"{i}/{name}": attention[name].reshape(model.width, -1)
            for name in ("query", "key", "value")
        }
        w |= {f"{i}/output": attention["output"].reshape(-1, model.width)} | {
            f"{i}/{name}": x for name, x in block["mlp"].items()
        }
        w |= {f"{i}/{name}": block[name]["gain"] for name in ("attention_norm", "mlp_norm")}
    zeros = ({name: jnp.zeros_like(x) for name, x in w.items()} for _ in "mv")
    return (jax.tree.map(jnp.array, w), *zeros, jnp.int32(0))


class Training:
    def __init__(self, step, state):
        self.step, self.state = step, state

    def run(self, rows, steps):  # -> CPU seconds of a step, loss of the last
        start = time.process_time()
        for _ in range(steps):
            self.state, loss = self.step(self.state, rows, np.float32(ADAMW.learning_rate))
        jax.block_until_ready((self.state, loss))
        return (time.process_time() - start) / steps, float(loss)


def contenders(model, length):
    batch, data = SEQUENCES * length, Data(sequence_length=length)
    run = Run(
        model=model,
        data=data,
        optimizer=ADAMW,
        schedule=constant(warmup=0),
        tokens=batch,
        batch_tokens=batch,
    )
    state, train_step = init_state(run, MESH), make_train_step(run, MESH)
    plain = Training(functools.partial(plain_step, model=model), plain_state(state.params, model))

    def step(state, rows, rate):
        state, metrics = train_step(state, rows, rate)
        return state, metrics["loss"]

    return Training(step, state), plain


def compare(width, depth, length):
    """CPU seconds of first calls and of steps, each [turns, (scalejax, plain)]."""
    model = Model.sized(width=width, depth=depth, head_size=16, vocabulary=512)
    rows = (
        np.random.default_rng(0)
        .integers(0, model.vocabulary, (SEQUENCES, length + 1))
        .astype(np.int32)
    )
    both, calls, steps = contenders(model, length), [], []
    for _ in range(3):
        times, (ours, plain) = zip(*(training.run(rows, 1) for training in both), strict=True)
        assert abs(ours - plain) < 1e-5, (
            f"not the same step: losses {ours} and {plain} at width {width}"
        )
        calls.append(times)
    count = max(2, round(CPU_SECONDS / min(calls[-1])))
    for turn in range(TURNS):
        times = {
            training: training.run(rows, count)[0]
            for training in (both if turn % 2 else both[::-1])
        }
        steps.append([times[training] for training in both])
    return np.array(calls[:1]), np.array(steps)


def main():
    jax.jit(jnp.sin)(1.0).block_until_ready()  # what the process pays once belongs to neither
    print(
        f"{'first call, s | step, ms':24} {'scalejax  plain  ratio':>22}   {'scalejax  plain  ratio':>22}"
    )
    ratios = []
    for name, size in SIZES.items():
        cells = []
        for times, unit in zip(compare(*size), (1, 1e3), strict=True):
            least, ratio = times.min(0) * unit, np.median(times[:, 0] / times[:, 1])
            cells.append(f"{least[0]:8.2f} {least[1]:6.2f} {ratio:6.2f}")
        ratios.append(f"{ratio:.2f} at width {size[0]}")
        print(f"{name:24} {cells[0]}   {cells[1]}", flush=True)
    print("step, scalejax / plain: " + ", ".join(ratios))


if __name__ == "__main__":
    main()
