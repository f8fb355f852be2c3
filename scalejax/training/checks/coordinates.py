"""The coordinate check: do the activations of growing models keep their size?

Models of growing width or depth are trained for a few steps. A parametrization passes
when two things stay about the same at every size: the mean absolute value of every
activation, and how far training has moved it. Under the standard parametrization they
do not, and with them the best learning rate moves.

The second is needed beside the first. A rate of the embedding that is 16 times too
small or too large leaves the size of activations nearly as it was.

Source: Yang et al. 2022 (arXiv 2203.03466), appendix D.1.

Shape suffixes: m models, r seeds, i steps (0: before the first), b sequences, t
positions, s key positions, d width, n heads.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from scalejax.config import Model, Placement, Run
from scalejax.evaluation.likelihood import token_losses
from scalejax.model.attention import attention_logits
from scalejax.model.parameters import Params, Scalings, initial_values, named_key, scalings
from scalejax.model.transformer import Transformer
from scalejax.optim.optimizers import Hyperparameters, hyperparameters, optimizer
from scalejax.training.sharding import make_mesh
from scalejax.training.step import Program

# The check passes when no |slope| of log mean |activation|, or of the log of its
# change, against log size exceeds this.
TOLERANCE = 0.15

# The slopes after this many steps and more are judged. Earlier ones still show the
# random initial logits, which shrink with width.
FIRST_JUDGED_STEP = 2

# What the names of changes begin with.
CHANGE = "change of "


def coordinate_check(
    run: Run,
    models: Sequence[Model],
    *,
    steps: int = 4,
    seeds: int = 3,
    table: Callable[..., Scalings] = scalings,
) -> "CoordinateCheck":
    """Train each of `models` for a few steps, and record what its activations do.

    `run` gives everything but the model. Its learning rate is held at the peak; choose
    a large one (1e-2), because with a small one no multiplier matters yet. `models` are
    at least three that differ in width, mlp_width and number of heads, or only in
    depth.

    Grow the number of heads, not their size (`base_head_size`). The products of random
    queries and keys start at head_size^-0.5, and training outgrows them slowly: the
    slopes of the attention logits are -0.50, -0.40, -0.35, -0.29 at steps 0 to 3, so
    that no parametrization passes unless its queries start at zero.

    `table(specs, parametrization, model)` returns the `Scaling` of every tensor. Pass a
    changed table to see what a multiplier is for.

    Raises ValueError when the models do not grow, or grow in both width and depth.
    """
    over = _growing_field(models)
    if steps < FIRST_JUDGED_STEP or seeds < 1:
        raise ValueError(
            f"coordinate_check needs at least {FIRST_JUDGED_STEP} steps and one seed; "
            f"got steps={steps}, seeds={seeds}"
        )
    trajectories_mr = [
        [_trajectory(run.replace(model=model, seed=seed), steps, table) for seed in range(seeds)]
        for model in models
    ]
    # Sizes first, then changes, which are the two rows of the figure.
    names = sorted(trajectories_mr[0][0], key=lambda name: name.startswith(CHANGE))
    values = {
        name: np.asarray([[one[name] for one in of_model] for of_model in trajectories_mr])
        for name in names
    }
    sizes = tuple(getattr(model, over) for model in models)
    return CoordinateCheck(over=over, sizes=sizes, values=values)


@dataclass(frozen=True, kw_only=True)
class CoordinateCheck:
    """The result of a coordinate check."""

    over: str
    """What grows: `width` or `depth`."""
    sizes: tuple[int, ...]
    """The widths or depths, [m], ascending."""
    values: dict[str, np.ndarray]
    """Mean |x| of each activation by name, and rms(x_i - x_0) of each as `change of
    NAME`, [m, r, i]. The change is NaN before the first step."""

    @property
    def slopes(self) -> dict[str, np.ndarray]:
        """Slope of the log of each value against log size, after every step [i].

        Logs are averaged over seeds. NaN once the training of a model has
        diverged.
        """
        log_size_m = np.log(self.sizes) - np.mean(np.log(self.sizes))
        return {
            name: log_size_m @ np.log(x_mri).mean(1) / (log_size_m @ log_size_m)
            for name, x_mri in self.values.items()
        }

    @property
    def worst(self) -> tuple[str, float]:
        """The activation with the largest |slope| at a judged step, and that slope."""
        extremes = {}
        for name, slopes in self.slopes.items():
            judged = slopes[FIRST_JUDGED_STEP:]
            extremes[name] = float(judged[np.argmax(_badness(judged))])
        return max(extremes.items(), key=lambda item: _badness(item[1]))

    @property
    def passed(self) -> bool:
        """Whether every slope at a judged step is within TOLERANCE of zero."""
        return abs(self.worst[1]) <= TOLERANCE

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.sizes))
        verdict = "passed" if self.passed else "FAILED"
        lines = [f"coordinate check over {self.over} {sizes}: {verdict}"]
        for name, slopes in self.slopes.items():
            by_step = " ".join(f"{slope:+.2f}" for slope in slopes)
            lines.append(f"  {name:<26} slope by step {by_step}")
        return "\n".join(lines)

    def plot(self, path: str | Path) -> None:
        """Write a figure of every value against size.

        It has one panel per value and one line per step.
        """
        from matplotlib import colormaps
        from matplotlib.figure import Figure

        figure = Figure(figsize=(3.5 * len(self.values) / 2, 5.5), layout="constrained")
        panels = figure.subplots(2, len(self.values) // 2, sharex=True).ravel()
        for panel, (name, x_mri) in zip(panels, self.values.items(), strict=True):
            mean_mi = np.exp(np.log(x_mri).mean(1))
            for i, mean_m in enumerate(mean_mi.T):
                color = colormaps["viridis"](0.58 * i / (len(mean_mi.T) - 1))
                panel.loglog(self.sizes, mean_m, "o-", ms=3, color=color, label=f"step {i}")
            panel.set_title(f"{name}: slope {self.slopes[name][-1]:+.2f}", fontsize=10)
            panel.set_xticks(self.sizes, [str(size) for size in self.sizes])
            panel.minorticks_off()
        panels[0].legend(fontsize=7)
        figure.supxlabel(self.over)
        figure.supylabel("mean |activation|, and rms of its change")
        figure.savefig(path, dpi=150)


def activations(network: Transformer, tokens_bt: jax.Array) -> dict[str, jax.Array]:
    """Six activations and two gains by name.

    They are the embedding; the last block's norm gain, attention logits, attention
    output and MLP output; the residual stream before the last norm; that norm's gain;
    and the logits. Gains are parameters: what they do to activations drowns in what
    the matrices do.
    """
    x_btd = network.embed(tokens_bt)
    tensors = {"embedding": x_btd}
    # The blocks are written out here because a block returns only the residual stream.
    # A test makes sure that the logits are those of the network.
    for block in network.blocks:
        normed_btd = block.attention_norm(x_btd)
        queries_and_keys = block.attention.queries_and_keys(normed_btd)
        logits_bnts = attention_logits(*queries_and_keys, scale=block.attention.scale)
        attended_btd = block.attention(normed_btd)
        x_btd = x_btd + block.branch_multiplier * attended_btd
        mlp_btd = block.mlp(block.mlp_norm(x_btd))
        x_btd = x_btd + block.branch_multiplier * mlp_btd
        tensors["block norm gain"] = block.mlp_norm.gain[...]
        # Attention logits of masked keys are -inf and do not count.
        tensors["attention logits"] = jnp.where(logits_bnts == -jnp.inf, 0.0, logits_bnts)
        tensors["attention output"] = attended_btd
        tensors["MLP output"] = mlp_btd
    tensors["last hidden"] = x_btd
    tensors["final norm gain"] = network.norm.gain[...]
    tensors["logits"] = network.logits(network.norm(x_btd))
    return tensors


def measures(tensors: dict[str, jax.Array], at_start: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Mean |x| of every tensor, and the rms of its change since the start."""
    sizes = {name: jnp.mean(jnp.abs(x)) for name, x in tensors.items()}
    changes = {
        f"{CHANGE}{name}": jnp.sqrt(jnp.mean(jnp.square(x - at_start[name])))
        for name, x in tensors.items()
    }
    # Nothing has changed at the start, biases start at zero, and no slope follows from
    # zeros.
    return {name: jnp.where(x == 0, jnp.nan, x) for name, x in (sizes | changes).items()}


def _growing_field(models: Sequence[Model]) -> str:
    """The field that grows, `width` or `depth`; ValueError unless exactly one does."""
    widths = [model.width for model in models]
    depths = [model.depth for model in models]
    fields = {"width": widths, "depth": depths}
    growing = [name for name, sizes in fields.items() if len(set(sizes)) > 1]
    ascending = all(np.all(np.diff(sizes) >= 0) for sizes in fields.values())
    if len(models) < 3 or len(growing) != 1 or not ascending:
        pairs = zip(widths, depths, strict=True)
        shapes = ", ".join(f"{width} x {depth}" for width, depth in pairs)
        raise ValueError(
            "coordinate_check needs 3 or more models that grow in width or in depth; "
            f"got width x depth {shapes}"
        )
    return growing[0]


def _trajectory(run: Run, steps: int, table: Callable[..., Scalings]) -> dict[str, np.ndarray]:
    """What `measures` gives before training and after every step, [i].

    All steps read one batch of random tokens with the frequencies of Zipf's law. With
    uniform tokens the gradients of the head would share no direction, and what it
    learns at small width would be noise: the logits then fall as width^-0.22 after 4
    steps.
    """
    program = Program.of(run, make_mesh(Placement()))
    scalings_table = table(program.network.specs, run.parametrization, run.model)

    vocabulary = run.model.vocabulary
    shape = (run.batch_sequences, run.data.sequence_length + 1)
    frequency = 1 / np.arange(1, vocabulary + 1)
    rng = np.random.default_rng(run.seed)
    rows = rng.choice(vocabulary, shape, p=frequency / frequency.sum()).astype(np.int32)

    train = _compiled_training(program, steps)
    means = train(
        jax.tree.map(jnp.float32, scalings_table),
        jax.random.key(run.seed),
        hyperparameters(run),
        rows,
    )
    return {name: np.asarray(mean_i) for name, mean_i in means.items()}


@functools.cache
def _compiled_training(
    program: Program, steps: int
) -> Callable[[Scalings, jax.Array, Hyperparameters, np.ndarray], dict[str, jax.Array]]:
    """(table, key, hyperparameters, rows int32 [b, t + 1]) -> values by name, [i].

    The table of scalings is an argument, so that one program serves every table.
    """
    network = program.network

    def loss(params: Params, rows: jax.Array) -> jax.Array:
        return jnp.mean(token_losses(network.bind(params), rows, "concatenate"))

    @jax.jit
    def train(
        table: Scalings, key: jax.Array, numbers: Hyperparameters, rows: jax.Array
    ) -> dict[str, jax.Array]:
        rule = optimizer(
            program.optimizer,
            numbers,
            numbers.peak,
            specs=network.specs,
            scalings=table,
            decay=program.decay,
        )

        def step(carry, _):
            params, moments = carry
            tensors = activations(network.bind(params), rows[:, :-1])
            means = measures(tensors, at_start)
            updates, moments = rule.update(jax.grad(loss)(params, rows), moments, params)
            return (optax.apply_updates(params, updates), moments), means

        params = initial_values(network.specs, table, named_key(key, "init"))
        at_start = activations(network.bind(params), rows[:, :-1])
        # One more step than asked for: the means are taken before each step.
        return jax.lax.scan(step, (params, rule.init(params)), length=steps + 1)[1]

    return train


def _badness(slope: float | np.ndarray) -> np.ndarray:
    """|slope|, where NaN, the sign of divergence, is worse than any number."""
    return np.nan_to_num(np.abs(slope), nan=np.inf)
