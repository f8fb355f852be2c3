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

# What to do about a table in other units.
SINGLE_UNITS = (
    "Fit again with --columns params=params*1e6,tokens=tokens*1e9 (for millions and billions)"
)

# Budgets of tokens that differ by less than this share are the same one, for which runs
# of other batch sizes took a whole number of steps.
SAME_BUDGET = 0.05

# Shares of a whole add up to 1, but for the rounding of each.
SHARE_TOLERANCE = 0.02

# Neighbouring values of a column that are this many times apart are in two units. The
# gap between a ladder of small models and one large run is smaller.
MAX_GAP = 5e3

# Words in the names of columns that say in which unit, or as what, a loss is measured.
BITS = {"bits", "bpb", "bpt", "bpc"}
PER_BYTE = {"bpb", "bpc", "byte", "bytes", "character", "characters"}
PERPLEXITY = {"ppl", "perplexity"}
ACCURACY = {"acc", "accuracy"}

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


def name_reasons(name: str, column: str) -> list[str]:
    """Say that a column is named after something else than the law reads.

    name, column: our name and the table's name of a loss or of a top-1 error.

    >>> name_reasons("loss", "ppl")[0].partition(";")[0]
    'ppl is a perplexity by its name'
    """
    words = {*_plain_name(column).split("_")}
    if "log" in words or column == name:
        return []
    if name == "loss" and words & PERPLEXITY:
        return [
            f"{column} is a perplexity by its name; a loss in nats is its logarithm: --columns "
            f"loss=log({quoted(column)})"
        ]
    if name == "loss" and words & BITS:
        return [
            f"{column} is in bits by its name, and so is every loss that the fit states or takes; "
            f"in nats it is --columns loss={quoted(column)}*log(2)"
        ]
    if words & ACCURACY and not words & {"loss", "error"}:
        return [
            f"{column} is an accuracy by its name; the error is 1 - accuracy: --columns "
            f"{name}=1-{quoted(column)}"
        ]
    return []


def is_per_byte(column: str) -> bool:
    """Whether a loss is one per byte or character by its name, and not one per token.

    >>> [is_per_byte(name) for name in ("bits_per_byte", "c4_bpb", "val_loss")]
    [True, True, False]
    """
    return bool({*_plain_name(column).split("_")} & PER_BYTE)


def gap_reasons(name: str, column: str, values: np.ndarray) -> list[str]:
    """Say that a column mixes two units, such as 125 (millions) and 1.3e9.

    name, column: our name and the table's name of an input.  values: (rows,).
    """
    if name not in RESOURCES or len(values) < 2:
        return []
    ordered = np.sort(values)
    gaps = ordered[1:] / ordered[:-1]
    largest = int(np.argmax(gaps))
    if gaps[largest] < MAX_GAP:
        return []
    return [
        f"{column} is at most {ordered[largest]:.3g} in {largest + 1} rows and at least "
        f"{ordered[largest + 1]:.3g} in the others; bring all rows to one unit"
    ]


def cell_reasons(params: np.ndarray, tokens: np.ndarray, column: str) -> list[str]:
    """Say that a sweep falls apart because its runs have nearly the same tokens.

    params, tokens: (rows,).  column: the table's name of the tokens.
    """
    sizes, budgets = np.unique(np.stack([params, tokens]), axis=1)
    # Cells are sorted by size, then by tokens.
    near = (np.diff(sizes) == 0) & (np.diff(budgets) < SAME_BUDGET * budgets[:-1])
    if not near.any():
        return []
    return [
        f"{near.sum()} of {len(sizes)} cells have under {SAME_BUDGET:.0%} more {column} than "
        "another of their size; runs are compared within equal params and tokens, so give those "
        "of one sweep the same nominal number: --columns tokens=NOMINAL"
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


def repeat_reasons(
    tokens: np.ndarray, unique_tokens: np.ndarray, columns: Mapping[str, str]
) -> list[str]:
    """Say that no run reads its text more than once, as where two columns are swapped.

    tokens, unique_tokens: (rows,).  columns: the table's name of each.
    """
    if not len(tokens) or np.any(tokens > unique_tokens) or np.all(tokens == unique_tokens):
        return []
    return [
        f"{columns['tokens']} are at most {columns['unique_tokens']} in every row, so that no run "
        "reads its text more than once; are the two swapped?"
    ]


def ratio_reasons(params: np.ndarray, tokens: np.ndarray, columns: Mapping[str, str]) -> list[str]:
    """Say that no model has so many or so few tokens per parameter, or so few FLOPs.

    params, tokens: (rows,); missing values are nan.  columns: the table's name of each;
    without one of the tokens, they are FLOPs / (6 params).
    """
    low, high = USUAL_TOKENS_PER_PARAM
    if not len(params):
        return []
    typical, cost = float(np.median(tokens / params)), 6 * float(np.max(params * tokens))
    is_usual = not np.isfinite(typical) or low <= typical <= high
    if is_usual and not cost < SMALLEST_FLOPS:
        return []
    size = quoted(columns["params"])
    if "tokens" in columns:
        what, remedy = columns["tokens"], f"tokens={quoted(columns['tokens'])}*1e9"
        # The ratio of swapped columns is a usual one upside down.
        remedy += "; or are the two swapped?" if typical < low else ""
    else:
        flops = quoted(columns["flops"])
        what, remedy = f"{flops} / (6 {size})", f"flops={flops}*1e18"
    problem = f"6 x {columns['params']} x {what} is at most {cost:.2g}, too little for FLOPs"
    if not is_usual:
        problem = f"{what} is about {typical:.2g} times {columns['params']}, and {low:g} to "
        problem += f"{high:g} is expected"
    return [
        f"{problem}; convert what is not in single parameters, tokens and FLOPs, such as --columns "
        f"params={size}*1e6,{remedy}"
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
            f"C = 6 params tokens does not hold in these units. {SINGLE_UNITS}, or predict from "
            "params and tokens"
        )


def check_budgets(flops: tuple[float, float]) -> None:
    """Raise ValueError where 6 x params x tokens of the fitted rows are no FLOPs.

    flops: smallest and largest 6 x params x tokens.
    """
    if flops[1] < SMALLEST_FLOPS:
        raise ValueError(
            f"6 x params x tokens is {flops[0]:.3g} to {flops[1]:.3g} in the fitted rows, which "
            f"cannot be FLOPs of single parameters and tokens. {SINGLE_UNITS}"
        )


def check_shares(shares: Mapping[str, np.ndarray | float]) -> None:
    """Raise ValueError where shares of a whole do not add up to 1.

    shares: by our names, of a run or (rows,) of a table.
    """
    totals = np.atleast_1d(np.sum(np.stack([*map(np.asarray, shares.values())]), axis=0))
    wrong = np.flatnonzero(np.abs(totals - 1) > SHARE_TOLERANCE)
    if len(wrong):
        name = next(iter(shares))
        raise ValueError(
            f"{', '.join(shares)} add up to {totals[wrong[0]]:.4g}, and shares of a whole add up "
            "to 1. Name every domain in the law, and divide percentages by 100: --columns "
            f"{name}={quoted(name)}/100,..."
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
        # As text, because the repr of a numpy number is np.int64(0).
        first = str(rows.loc[repeated, name].iloc[0])
        raise ValueError(
            f"{name} {first!r} has several rows, and the law reads one row per run; {remedy}"
        )


def _plain_name(column: object) -> str:
    return re.sub(r"\W+", "_", str(column)).strip("_").lower()


def quoted(column: str) -> str:
    """Return a column's name as an expression writes it: in backticks unless a word."""
    return column if column.isidentifier() else f"`{column}`"
