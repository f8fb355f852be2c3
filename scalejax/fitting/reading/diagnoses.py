"""What a table's values say about mistakes in it, and how to mend them.

Nothing here changes a fit. Each function returns sentences for the fit's reasons, or
raises ValueError where no fit of the table can be meant.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame

# Nats per token of a uniform guess among 160,000 tokens. Trained models are below it.
UNIFORM_GUESS = 12.0

# A table whose median loss is above this is no table of one diverged run.
HIGH_MEDIAN_LOSS = 6.0

# Exact FLOPs of small models with large vocabularies reach several times 6 N D.
MAX_FLOPS_RATIO = 30.0

# Tokens per parameter of trained language models, with room on both sides: the largest
# released ones have 60,000. Millions of parameters with billions of tokens are below.
USUAL_TOKENS_PER_PARAM = (0.1, 1e6)

# No language model is trained with fewer FLOPs than this. 7,000 million parameters and
# 2,000 billion tokens, taken for single ones, are below it.
SMALLEST_FLOPS = 1e8

# Share of the variance of ranks from which on one column follows others.
FOLLOWS = 0.5

# Inputs of which more lowers the loss.
RESOURCES = ("params", "tokens", "unique_tokens", "flops", "width", "depth")

# Names of columns, in lower case and with underscores, that identify a run, or that
# count the steps within one.
RUN_COLUMNS = ("run", "run_id", "run_name", "runid", "name", "id", "experiment", "trial")
STEP_COLUMNS = ("step", "steps", "global_step", "trainer_global_step", "iteration", "iter", "epoch")


def loss_reasons(column: str, loss: np.ndarray) -> list[str]:
    """Say that losses look like perplexities.

    column: the table's name of the loss.  loss: (rows,).
    """
    if not len(loss) or loss.max() <= UNIFORM_GUESS or np.median(loss) <= HIGH_MEDIAN_LOSS:
        return []
    return [
        f"{column} is between {loss.min():.3g} and {loss.max():.3g}, and losses above "
        f"{UNIFORM_GUESS:g} look like perplexities; a loss in nats per token is their logarithm: "
        f"--columns loss=log({quoted(column)})"
    ]


def direction_reasons(
    inputs: Mapping[str, np.ndarray], target: np.ndarray, name: str, column: str
) -> list[str]:
    """Say that the target moves against its law, as an accuracy does.

    inputs: (rows,) by our name of the column.  target: (rows,).  name, column: our name
    and the table's name of the target.
    """
    if name == "top1_error" and set(inputs) == {"loss"}:
        moves, what = _slopes([inputs["loss"]], -target), "falls as the loss rises"
    elif name == "loss" and set(inputs) <= {*RESOURCES}:
        # The first letters of several inputs would say less than "the runs grow".
        what = f"rises with {' and '.join(inputs)}"
        moves = _slopes([*inputs.values()], target)
    else:
        return []
    if not len(moves) or not np.all(moves > 0):
        return []
    if target.max() > 1:
        return [f"{column} {what}, and its law does not; is it another quantity?"]
    return [
        f"{column} {what}; is it an accuracy? The error is 1 - accuracy: "
        f"--columns {name}=1-{quoted(column)}"
    ]


def _slopes(inputs: list[np.ndarray], target: np.ndarray) -> np.ndarray:
    """Slopes of ranks, of the target on the inputs; empty if they explain little."""
    if len(target) <= len(inputs) + 2:
        return np.zeros(0)
    # Not scipy.stats.rankdata: scipy.stats takes 0.6 s to import, and pandas is here.
    from pandas import Series

    ranks, *columns = (Series(x).rank().to_numpy() for x in (target, *inputs))
    spread = float(np.sum((ranks - ranks.mean()) ** 2))
    design = np.stack([np.ones(len(target)), *columns], 1)
    slopes, *_ = np.linalg.lstsq(design, ranks, rcond=None)
    left = float(np.sum((ranks - design @ slopes) ** 2))
    return slopes[1:] if spread > 0 and left < (1 - FOLLOWS) * spread else np.zeros(0)


def flops_reasons(
    params: np.ndarray, tokens: np.ndarray, flops: np.ndarray, columns: Mapping[str, str]
) -> list[str]:
    """Say that FLOPs are far from 6 N D in the table's units.

    params, tokens, flops: (rows,); missing values are nan.  columns: the table's name
    of each.
    """
    # The law does not read the FLOPs, which can be any numbers.
    with np.errstate(all="ignore"):
        ratio = flops / (6 * params * tokens)
    ratio = ratio[np.isfinite(ratio)]
    typical = float(np.median(ratio)) if len(ratio) else 1.0
    if 1 / MAX_FLOPS_RATIO < typical < MAX_FLOPS_RATIO:
        return []
    names = [quoted(columns[name]) for name in ("params", "tokens", "flops")]
    return [
        f"{columns['flops']} is about {typical:.2g} times 6 x {columns['params']} x "
        f"{columns['tokens']}, and 1 is expected; convert what is not in single parameters, tokens "
        "and FLOPs, such as --columns params={}*1e6,tokens={}*1e9,flops={}*1e18".format(*names)
    ]


def ratio_reasons(params: np.ndarray, tokens: np.ndarray, columns: Mapping[str, str]) -> list[str]:
    """Say that no model has so many or so few tokens per parameter.

    params, tokens: (rows,); missing values are nan.  columns: the table's name of each.
    """
    low, high = USUAL_TOKENS_PER_PARAM
    typical = float(np.median(tokens / params)) if len(params) else low
    if not np.isfinite(typical) or low <= typical <= high:
        return []
    names = [quoted(columns[name]) for name in ("params", "tokens")]
    return [
        f"{columns['tokens']} is about {typical:.2g} times {columns['params']}, and {low:g} to "
        f"{high:g} is expected; convert what is not in single parameters and tokens, such as "
        "--columns params={}*1e6,tokens={}*1e9".format(*names)
    ]


def check_units_of_flops(ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise ValueError where params or tokens are in units for which C = 6 N D fails.

    ranges: smallest and largest fitted params and tokens.
    """
    (low_params, params), (low_tokens, tokens) = ranges["params"], ranges["tokens"]
    if 6 * params * tokens < SMALLEST_FLOPS:
        raise ValueError(
            f"the fitted params are {low_params:.3g} to {params:.3g} and tokens are "
            f"{low_tokens:.3g} to {tokens:.3g}, which cannot be single parameters and tokens: "
            "C = 6 params tokens does not hold in these units. Fit again with --columns "
            "params=params*1e6,tokens=tokens*1e9 (for millions and billions), or predict from "
            "params and tokens"
        )


def check_one_row_per_run(rows: "DataFrame", column: str, cluster: str | None = None) -> None:
    """Raise ValueError when a table has several rows of one run.

    column: the table's name of the column `run`, whose values must differ. Another
    column that identifies runs by its name may repeat, unless the rows of a run differ
    in their step.  cluster: what is resampled together, and so may repeat.
    """
    step = next((x for x in rows.columns if _plain_name(x) in STEP_COLUMNS), None)
    for name in rows.columns:
        is_run = name == column
        if not is_run and (_plain_name(name) not in RUN_COLUMNS or step in (None, name)):
            continue
        repeated = rows[name].duplicated(keep=False) & rows[name].notna()
        if not repeated.any() or (not is_run and name == cluster):
            continue
        if not is_run and rows.loc[repeated].duplicated([name, step]).any():
            continue
        remedy = "choose rows with --where"
        if step is not None and step != name:
            last = f"last({quoted(str(name))}, {quoted(str(step))})"
            remedy = f'choose the last row of each with --where "{last}"'
        raise ValueError(
            f"{name} {rows.loc[repeated, name].iloc[0]!r} has several rows, and the law reads one "
            f"row per run; {remedy}"
        )


def _plain_name(column: object) -> str:
    return re.sub(r"\W+", "_", str(column)).strip("_").lower()


def quoted(column: str) -> str:
    """Return a column's name as an expression writes it: in backticks unless a word."""
    return column if column.isidentifier() else f"`{column}`"
