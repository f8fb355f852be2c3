"""How much compute recipe or corpus B saves over A, at equal loss."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalejax import laws
from scalejax.fitting import expressions, tables
from scalejax.fitting.comparison import checks
from scalejax.fitting.comparison.pairing import Draws, Pairing, draw_jointly, pair_rows
from scalejax.fitting.comparison.result import Comparison, Gain
from scalejax.fitting.extrapolation import extrapolation
from scalejax.fitting.fit import fit
from scalejax.fitting.options import DEFAULT_LOSS
from scalejax.fitting.parametric.fit import with_parameter_count
from scalejax.fitting.parametric.result import ParametricFit
from scalejax.fitting.reading import diagnoses
from scalejax.fitting.resampling import MIN_DRAWS, TAIL
from scalejax.laws import equal_loss
from scalejax.laws.law import Law, ParametricLaw

if TYPE_CHECKING:
    from pandas import DataFrame

# Budgets that are compared unless others are given: the ends of the range that both
# tables cover, and its middle.
BUDGETS = 3

# Endings of columns that say how far a loss spreads, and are no domain of it.
SPREADS = ("_se", "_std", "_sd", "_stderr")

# An optimum within this factor of the fitted sizes and tokens is not mentioned.
NEAR = 2.0

# Two ratios of tokens to params that differ by less count as one.
SAME_RATIO = 0.01

# Recipes that train at all are not this many times apart in compute. Tables in other
# units are.
MAX_GAIN = 100.0

# The law of A is not asked for budgets this many times beyond its runs.
MAX_DISTANCE = 1e9


def compare(
    a: tables.Table,
    b: tables.Table,
    law: Law | str,
    *,
    flops: Sequence[float] | None = None,
    tokens_per_param: float | None = None,
    columns: Mapping[str, str] | None = None,
    where: str | None = None,
    loss: str = DEFAULT_LOSS,
    draws: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Say how many times the compute of B its rival A needs for the same loss.

    Both tables are fitted by the same law. The gain at a budget C of B is the g for
    which L_A(g C) = L_B(C). For a law of (params, tokens), L(C) is the loss of the
    compute-optimal run under C = 6 N D, because each recipe would be used at its own
    best size; `tokens_per_param` fixes the ratio instead. For a law of flops, L(C) is
    the law along the runs as they were allocated.

    Rows that share params, tokens and seed are paired. Intervals are percentiles over
    joint draws of both laws. In these, paired rows share as much of their errors as
    their residuals do, and rows of one trunk as much as in `scalejax.fit`.

    a, b: tables as for `scalejax.fit`, or folders of studies.  flops: budgets of B; by
    default the ends and the middle of the range that both tables cover.  The other
    options are those of `scalejax.fit`.  Gains in domains (loss_wiki) come last.

    Raises ValueError for tables in different units or of different tokenizers, and for
    laws that do not tell what a run costs; FileNotFoundError.
    """
    law = _checked(law, tokens_per_param)
    budgets = _checked_budgets(flops or (), draws)
    named = dict(columns or {})
    frames = [_rows(table, where) for table in (a, b)]
    column = tables.column_for(frames[0], "loss", named)
    checks.check_tokenizers(frames, column)
    reasons = checks.held_out_reasons(frames)
    options = (loss, draws, seed, tokens_per_param)
    compared = {column: _compare_column(frames, law, named | {"loss": column}, *options)}
    for own in _domains(frames, column):
        try:
            compared[own] = _compare_column(frames, law, named | {"loss": own}, *options)
        except ValueError as error:
            reasons.append(f"{own} is not compared: {error}")
    reasons += [f"{own}: {reason}" for own, one in compared.items() for reason in one.reasons]
    first = compared[column]
    budgets = budgets or _budgets(first)
    return Comparison(
        law=law.name,
        column=column,
        gains=[
            x for own in compared for x in _gains(own, compared[own], budgets, tokens_per_param)
        ],
        pairs=len(first.pairing.pairs),
        correlation=first.draws.correlation,
        reasons=reasons,
        fits={own: one.fits for own, one in compared.items()},
    )


def _checked_budgets(flops: Sequence[float], draws: int) -> list[float]:
    budgets = [float(budget) for budget in flops]
    if draws < MIN_DRAWS:
        raise ValueError(f"a 95% interval needs {MIN_DRAWS} draws or more; got draws={draws}")
    if not all(np.isfinite(x) and x > 0 for x in budgets):
        raise ValueError(f"flops must be positive numbers; got {budgets}")
    return budgets


class _Compared(NamedTuple):
    """Two fits of one column, and joint draws of both."""

    fits: tuple[ParametricFit[Any], ParametricFit[Any]]
    flops: tuple[np.ndarray, np.ndarray]
    """Of the rows of A, and of B."""
    pairing: Pairing
    draws: Draws
    reasons: list[str]


def _checked(law: Law | str, tokens_per_param: float | None) -> ParametricLaw[Any]:
    law = laws.named(law) if isinstance(law, str) else law
    if isinstance(law, ParametricLaw) and law.inputs == ("x",):
        law = laws.power("flops", **dict(law.fixed))
    costed = isinstance(law, ParametricLaw) and law.inputs in equal_loss.COSTED_INPUTS
    if not costed or law.target != "loss":
        raise ValueError(
            f"the {law.name} law of {', '.join(law.inputs)} does not say what a run costs; compare "
            "with a law of the loss on params and tokens, such as chinchilla, or power on flops"
        )
    assert isinstance(law, ParametricLaw)
    if tokens_per_param is not None and law.inputs == ("flops",):
        raise ValueError(
            "a law of flops describes the runs as they were allocated and takes no tokens per "
            "param; leave it out, or give a law of params and tokens"
        )
    if tokens_per_param is not None and not 0 < tokens_per_param < np.inf:
        raise ValueError(f"tokens per param must be a positive number; got {tokens_per_param}")
    return law


def _rows(table: tables.Table, where: str | None) -> "DataFrame":
    """The chosen rows of a table, or of the results of a study's folder."""
    if isinstance(table, str | os.PathLike) and Path(table).is_dir():
        results = Path(table) / "results.parquet"
        if not results.is_file():
            raise FileNotFoundError(
                f"{table} is a folder without results.parquet; give a table, or the folder of a "
                "study that has finished runs"
            )
        table = results
    return expressions.chosen_rows(tables.read(table), where).reset_index(drop=True)


def _domains(frames: Sequence["DataFrame"], column: str) -> list[str]:
    """Columns of the loss on single domains that both tables have, by their names.

    Some may turn out to be none, such as loss_spikes.
    """
    common = [name for name in frames[0].columns if name in frames[1].columns]
    return [
        name
        for name in map(str, common)
        if name.startswith(f"{column}_") and not name.endswith(SPREADS)
    ]


def _compare_column(
    frames: Sequence["DataFrame"],
    law: ParametricLaw[Any],
    columns: dict[str, str],
    loss: str,
    draws: int,
    seed: int,
    tokens_per_param: float | None,
) -> _Compared:
    read = [
        tables.read_columns(frame, law.inputs, "loss", with_parameter_count(law, frame, columns))
        for frame in frames
    ]
    # Diverged runs have no finite loss. They are left out here, so that the rows of the
    # fits are those that are paired.
    complete = [frame.loc[one.complete] for frame, one in zip(frames, read, strict=True)]
    flops = [_flops(dict(zip(law.inputs, one.inputs, strict=True))) for one in read]
    checks.check_units(flops)
    rows = pair_rows(complete, [r.inputs for r in read], columns.get("seed", "seed"))
    pairs = rows.pairs
    checks.check_loss_units(read[1].target[pairs[:, 1]] / read[0].target[pairs[:, 0]])
    fits = [fit(rows, law, columns=columns, loss=loss, bootstrap=0) for rows in complete]
    one, two = fits
    if not (isinstance(one, ParametricFit) and isinstance(two, ParametricFit)):
        raise ValueError(f"the {law.name} law is not fitted to one row per run")
    _check_fits((one, two), tokens_per_param)
    reasons = [
        f"the law on {name}: {reason}"
        for name, one_fit in zip("AB", fits, strict=True)
        for reason in one_fit.reasons
    ]
    assert one.optimum and two.optimum, "a fit that `fit` returned has its optimum"
    drawn = draw_jointly(law, (one.optimum, two.optimum), rows, draws, seed)
    return _Compared((one, two), (flops[0], flops[1]), rows, drawn, reasons)


def _flops(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """What each run cost, as the law counts it, (rows,)."""
    if "flops" in inputs:
        return inputs["flops"]
    diagnoses.check_units_of_flops(
        {name: (float(x.min()), float(x.max())) for name, x in inputs.items()}
    )
    return 6 * inputs["params"] * inputs["tokens"]


def _check_fits(fits: Sequence[ParametricFit[Any]], tokens_per_param: float | None) -> None:
    """Raise ValueError if a law did not converge, or if its optimum is undetermined."""
    for name, fitted in zip("AB", fits, strict=True):
        if fitted.verdict == "not-converged":
            raise ValueError(
                f"the {fitted.law.name} law did not converge on {name}: {'; '.join(fitted.reasons)}"
            )
        for quantity, value in fitted.unvaried.items():
            if quantity != "tokens/params":
                raise ValueError(
                    f"all runs of {name} have {value:.4g} {quantity}, which says nothing of runs "
                    f"with more or fewer; add runs of {name} with other {quantity}"
                )
            if tokens_per_param is None or abs(tokens_per_param / value - 1) > SAME_RATIO:
                raise ValueError(
                    f"all runs of {name} have {value:.4g} tokens per param, which says nothing of "
                    "other ratios, such as the compute-optimal one; compare at that ratio: "
                    f"--tokens-per-param {value:.4g}"
                )


def _budgets(compared: _Compared) -> list[float]:
    """The range of FLOPs that both tables cover; where there is none, that of B."""
    a, b = compared.flops
    low, high = max(a.min(), b.min()), min(a.max(), b.max())
    if low >= high:
        low, high = b.min(), b.max()
    return np.geomspace(low, high, BUDGETS).tolist()


def _gains(
    column: str, compared: _Compared, budgets: list[float], ratio: float | None
) -> list[Gain]:
    (fit_a, fit_b), (flops_a, _), law = compared.fits, compared.flops, compared.fits[0].law
    bracket = float(flops_a.min()) / MAX_DISTANCE, float(flops_a.max()) * MAX_DISTANCE
    a, b = ({name: np.array([x]) for name, x in one.params.items()} for one in (fit_a, fit_b))
    values = gains_of_draws(law, a, b, budgets, bracket, ratio)[0].tolist()
    losses = equal_loss.loss_of_budget(law, b, np.array([budgets]), ratio)[0].tolist()
    drawn = compared.draws
    ends = interval_ends(gains_of_draws(law, drawn.a, drawn.b, budgets, bracket, ratio))
    gains = []
    for flops, loss, value, own in zip(budgets, losses, values, ends, strict=True):
        notes = _notes(compared, flops, value, ratio)
        if unbounded := _unbounded(compared, flops, value, ratio):
            own, notes = (None, None), [*unbounded, *notes]
        gains.append(Gain(column, flops, loss, value, *own, tuple(notes)))
    return gains


def _unbounded(compared: _Compared, flops: float, gain: float, ratio: float | None) -> list[str]:
    """Say that a law is asked beyond its runs for what these leave free."""
    notes = []
    for name, fitted, budget in zip("AB", compared.fits, (flops * gain, flops), strict=True):
        if not fitted.open_inputs or not 0 < budget < np.inf:
            continue
        if fitted.law.inputs == ("flops",):
            run = {"flops": budget}
        elif ratio is None:
            run = equal_loss.optimal_run(fitted.law, fitted.params, budget)
        else:
            size = (budget / 6 / ratio) ** 0.5
            run = {"params": size, "tokens": ratio * size}
        notes += [f"no interval, of {name}: {text}" for text in fitted.beyond_open(run)]
    return notes


def gains_of_draws(
    law: ParametricLaw[Any],
    a: dict[str, np.ndarray],
    b: dict[str, np.ndarray],
    budgets: Sequence[float],
    bracket: tuple[float, float],
    tokens_per_param: float | None = None,
) -> np.ndarray:
    """Return the gain of each draw of two laws at each budget of B, (K, budgets).

    a, b: (K,) by parameter, nan for a draw without a fit, whose gain is nan.  bracket:
    FLOPs of A between which the loss of B is sought; a gain is 0 or infinite beyond.
    """
    losses = equal_loss.loss_of_budget(law, b, np.array([budgets]), tokens_per_param)
    needed = equal_loss.budget_of_loss(law, a, losses, bracket, tokens_per_param)
    fitted = np.all([np.isfinite(x) for x in (*a.values(), *b.values())], axis=0)
    return np.where(fitted[:, None], needed / budgets, np.nan)


def interval_ends(gains: np.ndarray) -> list[tuple[float | None, float | None]]:
    """Return the 95% percentile interval of each column of gains, (K, budgets).

    An end is None where nothing bounds it. A draw without a gain, nan, may lie beyond
    either end.
    """
    # Sorted by hand: between two infinite draws np.percentile would compute inf - inf.
    beyond = math.ceil(TAIL * len(gains)) - 1
    lows = np.sort(np.where(np.isnan(gains), 0.0, gains), axis=0)[beyond]
    highs = np.sort(np.where(np.isnan(gains), np.inf, gains), axis=0)[-1 - beyond]
    # A lower end that is infinite bounds nothing either: A never reaches the loss.
    lows, highs = (np.where((x > 0) & (x < np.inf), x, np.nan).tolist() for x in (lows, highs))
    return [
        (None if np.isnan(low) else low, None if np.isnan(high) else high)
        for low, high in zip(lows, highs, strict=True)
    ]


def _notes(compared: _Compared, flops: float, gain: float, ratio: float | None) -> list[str]:
    """Say where the comparison goes beyond the runs of A or B."""
    notes = []
    if not np.isfinite(gain):
        notes.append("A does not reach this loss with any compute")
    budgets = {"A": flops * gain, "B": flops}
    for (name, budget), fitted, spent in zip(
        budgets.items(), compared.fits, compared.flops, strict=True
    ):
        if not 0 < budget < np.inf:
            continue
        ranges = {"flops": (float(spent.min()), float(spent.max()))}
        beyond = extrapolation({"flops": budget}, ranges)
        # The optimum of a budget within the range may still be a run of another shape.
        if not beyond and ratio is None and fitted.law.inputs == ("params", "tokens"):
            best = equal_loss.optimal_run(fitted.law, fitted.params, budget)
            near = {name: (low / NEAR, NEAR * high) for name, (low, high) in fitted.ranges.items()}
            is_near = not extrapolation(best, near)
            beyond = [] if is_near else extrapolation(best, fitted.ranges)
            beyond = [f"its compute-optimal {text}" for text in beyond]
        notes += [f"{name} extrapolates: {text}" for text in beyond]
    # Beyond its runs, a law near its irreducible loss may need any factor.
    is_beyond = any("extrapolates: flops" in note for note in notes)
    if not is_beyond and not 1 / MAX_GAIN < gain < MAX_GAIN:
        notes.append(
            "no two recipes are so far apart within their runs; do A and B give params, tokens, "
            "FLOPs and the loss in the same units?"
        )
    return notes
