"""A task ladder: the error of a large run on a task, from a table of small runs.

A chain of two laws goes from (params, tokens) to a proxy of the task, such as the bits
per byte of its answers, and from the proxy to the error (Bhagia et al. 2024, arXiv
2412.04403). Small runs fit several chains equally well, and these disagree about a
large run by more than their residuals do. So a ladder fits all of them and averages:
the choice of laws is a part of its uncertainty.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scalejax.fitting import chain, tables
from scalejax.fitting.fit import fit
from scalejax.fitting.parametric.result import ParametricFit
from scalejax.fitting.reading.numbers import one_run
from scalejax.fitting.result import LEVEL, Estimate
from scalejax.laws import forms
from scalejax.laws.law import ParametricLaw

if TYPE_CHECKING:
    pass


class Chain(NamedTuple):
    """A law of a proxy, and a law of the error against the proxy."""

    proxy: str
    """The column, or expression, that the first law predicts."""
    loss_fit: ParametricFit[Any]
    error_fit: ParametricFit[Any]


class TaskLadder(NamedTuple):
    """All chains of one task, fitted to the same runs."""

    chains: list[Chain]

    def predict(self, *, params: float, tokens: float) -> Estimate:
        """Predict the top-1 error of a run, with a 95% interval.

        The value is the mean over the chains. The interval holds 95% of the draws of
        all chains together, each with the same weight: of their laws, their residuals,
        and the differences between them.
        """
        run = one_run({"params": params, "tokens": tokens})
        run["flops"] = 6 * run["params"] * run["tokens"]
        estimates, samples = [], []
        for one in self.chains:
            inputs = {name: run[name] for name in one.loss_fit.law.inputs}
            estimates.append(chain.predict(one.loss_fit, one.error_fit, **inputs))
            samples.append(chain.measured_errors(one.loss_fit, one.error_fit, **inputs))
        values = [estimate.value for estimate in estimates]
        value = float(np.mean(values))
        if not all(sample.size for sample in samples):
            method = f"no interval: not all of {len(values)} chains have bootstrap draws"
            return Estimate(value, None, None, LEVEL, method)
        # What one of the chains does not bound, their average does not bound either.
        for estimate in estimates:
            if estimate.low is None:
                method = f"{estimate.method} (in one of {len(values)} chains)"
                return Estimate(value, None, None, LEVEL, method)
        # Chains with few draws count as much as those with many.
        levels = np.linspace(0, 100, 1 + max(sample.size for sample in samples))
        pooled = np.concatenate([np.nanpercentile(sample, levels) for sample in samples])
        low, high = np.percentile(pooled, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
        spread = f"{min(values):.4g} to {max(values):.4g}"
        method = f"{len(values)} chains of laws, whose values are {spread}"
        return Estimate(value, float(low), float(high), LEVEL, method)


def fit_ladder(
    table: "tables.Table",
    error: str,
    proxies: Sequence[str],
    *,
    columns: Mapping[str, str] | None = None,
    bootstrap: int = 200,
    seed: int = 0,
) -> TaskLadder:
    """Fit the ladder of a task to a table with one row per run.

    error: column of the top-1 error, or an expression such as "1-arc_acc".  proxies:
    columns of what the error follows, such as the bits per byte of the task's answers
    and the validation loss.  columns: our names of other columns, as for
    `scalejax.fit`.  bootstrap: number of draws of each law.

    There are four chains for each proxy: it follows Chinchilla's law of (params,
    tokens) or a power law of 6 x params x tokens, and the error at a low loss is zero
    or a free parameter of the sigmoid. Chains that do not converge are left out.

    Raises ValueError for a table that cannot be read, and if no chain converges.
    """
    frame, named = tables.read(table), dict(columns or {})
    size, data = (
        named.get(name) or tables.column_for(frame, name) for name in ("params", "tokens")
    )
    named |= {"params": size, "tokens": data, "flops": f"6*({size})*({data})"}
    chains = []
    for proxy in proxies:
        of_error = {"loss": proxy, "top1_error": error}
        error_fits = [
            fit(frame, law, columns=of_error, loss="mse", bootstrap=bootstrap, seed=seed)
            for law in (forms.sigmoid(), forms.sigmoid(floor=0.0))
        ]
        first_laws: list[ParametricLaw[Any]] = [forms.chinchilla(), forms.power("flops")]
        for law in first_laws:
            read = {name: named[name] for name in law.inputs} | {"loss": proxy}
            loss_fit: ParametricFit[Any] = fit(
                frame, law, columns=read, bootstrap=bootstrap, seed=seed
            )
            chains += [Chain(proxy, loss_fit, error_fit) for error_fit in error_fits]
    converged = [
        one
        for one in chains
        if "not-converged" not in (one.loss_fit.verdict, one.error_fit.verdict)
    ]
    if not converged:
        raise ValueError(
            f"none of {len(chains)} chains of laws of {error} converged; check that the table has "
            "runs of several sizes, one row each"
        )
    return TaskLadder(converged)
