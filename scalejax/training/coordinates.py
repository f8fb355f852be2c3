"""The coordinate check: do activations keep their size while models of growing width or depth train?

Yang et al. 2022 (arXiv 2203.03466), appendix D.1, with the bound of 0.15 on slopes.
Axes: m models, s seeds, i steps (0: before the first).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from scalejax.config import Model, Parametrization, Run
from scalejax.evaluation.likelihood import cross_entropy
from scalejax.model.attention import attention_logits
from scalejax.model.parameters import Params, initial_values, named_key, scalings
from scalejax.model.transformer import Transformer, abstract
from scalejax.optim.optimizers import Hyperparameters, hyperparameters, optimizer

TOLERANCE = 0.15
"""Largest |slope| of log mean |activation| against log size that passes."""
FROM_STEP = 2
"""First step that is judged: before it the random initial logits, which shrink with width, still show."""


def coordinate_check(
    run: Run,
    models: Sequence[Model],
    *,
    steps: int = 4,
    seeds: int = 3,
    table: Callable[..., Params] = scalings,
) -> "Coordinates":
    """Trains each of `models` for a few steps as `run` says, and records mean |activation| after every step.

    The run's learning rate is held at its peak: choose it deliberately large (1e-2), or no multiplier matters yet. All steps read
    one batch of random tokens, as frequent as Zipf's law says: with uniform ones the head's gradients share no direction, and
    what it learns at small width is noise (logits then fall as width^-0.22 after 4 steps). The models differ in width, mlp_width
    and heads, or else in depth alone; at least 3 sizes. Let heads grow in number: where they grow in size (`base_head_size`) the
    products of random queries and keys start as head_size^-0.5 and what is learned outgrows them slowly (slopes of the attention
    logits -0.50, -0.40, -0.35, -0.29 at steps 0 to 3), so that no parametrization without zero queries passes.
    `table(specs, parametrization, model)` gives the `Scaling` of every tensor: another one shows what a multiplier is for.

    Raises ValueError when the models do not grow, or grow in both.
    """
    over = _grows(models)
    if steps < FROM_STEP or seeds < 1:
        raise ValueError(
            f"coordinate_check needs steps of at least {FROM_STEP} and a seed; got steps={steps}, seeds={seeds}"
        )
    found = [
        [_trajectory(run.replace(model=model, seed=seed), steps, table) for seed in range(seeds)]
        for model in models
    ]
    values = {
        name: np.asarray([[one[name] for one in of_model] for of_model in found])
        for name in found[0][0]
    }
    return Coordinates(
        over=over, sizes=tuple(getattr(model, over) for model in models), values=values
    )


def _grows(models: Sequence[Model]) -> str:
    widths, depths = ([getattr(model, name) for model in models] for name in ("width", "depth"))
    growing = [
        name for name, sizes in (("width", widths), ("depth", depths)) if len(set(sizes)) > 1
    ]
    if len(models) < 3 or len(growing) != 1 or any(np.diff(widths) < 0) or any(np.diff(depths) < 0):
        shapes = ", ".join(
            f"{width} x {depth}" for width, depth in zip(widths, depths, strict=True)
        )
        raise ValueError(
            f"coordinate_check needs 3 or more models that grow in width or in depth; got width x depth {shapes}"
        )
    return growing[0]


def _trajectory(run: Run, steps: int, table: Callable[..., Params]) -> dict[str, np.ndarray]:
    """Mean |activation| before training and after every step, [i]."""
    _, specs = abstract(run.model, run.parametrization)
    rows_of_table = jax.tree.map(jnp.float32, table(specs, run.parametrization, run.model))
    shape, frequency = (
        (run.batch_sequences, run.data.sequence_length + 1),
        1 / np.arange(1, run.model.vocabulary + 1),
    )
    batch = np.random.default_rng(run.seed).choice(
        run.model.vocabulary, shape, p=frequency / frequency.sum()
    )
    train = _train(
        run.model,
        run.parametrization,
        run.compute_dtype,
        run.optimizer.name,
        run.optimizer.decay,
        steps,
    )
    found = train(
        rows_of_table, jax.random.key(run.seed), hyperparameters(run), batch.astype(np.int32)
    )
    return {name: np.asarray(values) for name, values in found.items()}


@functools.cache
def _train(
    model: Model,
    parametrization: Parametrization,
    compute_dtype: str,
    name: str,
    decay: str,
    steps: int,
) -> Callable:
    """(table, key, hyperparameters, rows [b, t + 1]) -> activations [i]; the table is data, so that one program serves any."""
    graphdef, specs = abstract(model, parametrization, compute_dtype)

    def loss(params: Params, rows: jax.Array) -> jax.Array:
        return jnp.mean(cross_entropy(nnx.merge(graphdef, params), rows)[0])

    @jax.jit
    def train(
        table: Params, key: jax.Array, numbers: Hyperparameters, rows: jax.Array
    ) -> dict[str, jax.Array]:
        rule = optimizer(name, numbers, numbers.peak, specs=specs, scalings=table, decay=decay)

        def step(carry, _):
            params, moments = carry
            seen = activations(nnx.merge(graphdef, params), rows[:, :-1])
            updates, moments = rule.update(jax.grad(loss)(params, rows), moments, params)
            return (optax.apply_updates(params, updates), moments), seen

        params = initial_values(specs, table, named_key(key, "init"))
        return jax.lax.scan(step, (params, rule.init(params)), length=steps + 1)[1]

    return train


def activations(network: Transformer, tokens_bt: jax.Array) -> dict[str, jax.Array]:
    """Mean |x| of the embedding, of the last block's attention logits (keys in view), attention and MLP output, of the residual
    stream before the last norm, and of the logits."""
    x_btd = network.embed(tokens_bt)
    seen = {"embedding": x_btd}
    for block in network.blocks:
        normed_btd = block.attention_norm(x_btd)
        logits_bnts = attention_logits(
            *block.attention.queries_and_keys(normed_btd), scale=block.attention.scale
        )
        attended_btd = block.attention(normed_btd)
        x_btd = x_btd + block.branch_multiplier * attended_btd
        mixed_btd = block.mlp(block.mlp_norm(x_btd))
        x_btd = x_btd + block.branch_multiplier * mixed_btd
        seen |= {
            "attention logits": logits_bnts,
            "attention output": attended_btd,
            "MLP output": mixed_btd,
        }
    seen |= {"last hidden": x_btd, "logits": network.logits(network.norm(x_btd))}
    return {
        name: jnp.mean(jnp.abs(x), where=x != -jnp.inf) for name, x in seen.items()
    }  # -inf: keys out of view


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """What a coordinate check found."""

    over: str
    """`width` or `depth`: what grows."""
    sizes: tuple[int, ...]
    """Its values, [m]."""
    values: dict[str, np.ndarray]
    """Activation -> mean |x|, [m, s, i]."""

    @property
    def slopes(self) -> dict[str, np.ndarray]:
        """Activation -> slope of log mean |x| (averaged over seeds) against log size, after every step [i]; NaN once diverged."""
        log_size = np.log(self.sizes) - np.mean(np.log(self.sizes))
        return {
            name: log_size @ np.log(x).mean(1) / (log_size @ log_size)
            for name, x in self.values.items()
        }

    @property
    def worst(self) -> tuple[str, float]:
        """The activation that moves most with size after FROM_STEP or more steps, and its slope there."""
        judged = {name: slopes[FROM_STEP:] for name, slopes in self.slopes.items()}
        extreme = {
            name: float(slopes[np.argmax(np.nan_to_num(np.abs(slopes), nan=np.inf))])
            for name, slopes in judged.items()
        }
        return max(extreme.items(), key=lambda item: np.nan_to_num(abs(item[1]), nan=np.inf))

    @property
    def passed(self) -> bool:
        """Whether every slope after FROM_STEP or more steps is within TOLERANCE of zero."""
        return abs(self.worst[1]) <= TOLERANCE

    def __str__(self) -> str:
        lines = [
            f"coordinate check over {self.over} {', '.join(map(str, self.sizes))}: {'passed' if self.passed else 'FAILED'}"
        ]
        for name, slopes in self.slopes.items():
            lines.append(
                f"  {name:<17} slope by step " + " ".join(f"{slope:+.2f}" for slope in slopes)
            )
        return "\n".join(lines)

    def plot(self, path: str | Path) -> None:
        """Writes a figure: mean |activation| against size, one panel for each, one line for every step."""
        from matplotlib import colormaps
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10.5, 5.5), layout="constrained")
        panels = figure.subplots(2, 3, sharex=True).ravel()
        for panel, (name, x) in zip(panels, self.values.items(), strict=True):
            for i in range(x.shape[2]):
                colour = colormaps["viridis"](0.85 * i / (x.shape[2] - 1))
                panel.loglog(
                    self.sizes,
                    np.exp(np.log(x[:, :, i]).mean(1)),
                    "o-",
                    ms=3,
                    color=colour,
                    label=f"step {i}",
                )
            panel.set_title(f"{name}: slope {self.slopes[name][-1]:+.2f}", fontsize=10)
            panel.set_xticks(self.sizes, [str(size) for size in self.sizes])
            panel.minorticks_off()
        panels[0].legend(fontsize=7)
        figure.supxlabel(self.over)
        figure.supylabel("mean |activation|")
        figure.savefig(path, dpi=150)
