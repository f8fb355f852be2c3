"""What it costs to train a cell with the hyperparameters of a law."""

import numpy as np

from scalejax.laws.hyperparameters.forms import Hyperparameters
from scalejax.laws.hyperparameters.sweep import Sweep, settings


def regret(law: Hyperparameters, cell: Sweep) -> float:
    """Relative loss above the cell's best run at the law's hyperparameters.

    The loss there is interpolated linearly between the runs, in (log LR, log batch);
    outside of the swept region the nearest run counts. Among runs that differ in beta2
    only, the best counts, because beta2 remains to be chosen at that batch size. A law
    that is nan has a regret of nan.

    The interpolation uses the measured losses and no smooth surface, so that it favours
    no estimator. It is biased: the loss is convex about its optimum, hence a linear
    interpolation is too high, and the best of many noisy runs is too low. Differences
    below .05% say little on sweeps like StepLaw's.
    """
    # Takes a second to import on a slow machine, which other laws need not pay.
    from scipy.interpolate import LinearNDInterpolator
    from scipy.spatial import QhullError

    N, D = cell.params[0], cell.tokens[0]
    if np.isnan(law.batch_coefficient) and np.ptp(cell.batch_tokens) == 0:
        return _regret_of_rate(float(law.learning_rate(N, D)), cell)
    at = np.log(np.array([law.learning_rate(N, D), law.batch_tokens(D)]))
    if not np.isfinite(at).all():
        return np.nan
    pairs, lowest = settings(cell)
    try:
        loss = float(LinearNDInterpolator(pairs, lowest, rescale=True)(at)[0])
    except QhullError:
        # The runs of this cell lie on one line and span no triangle.
        loss = np.nan
    if not np.isfinite(loss):
        loss = float(lowest[np.argmin(np.sum((pairs - at) ** 2, axis=1))])
    return loss / float(cell.loss.min()) - 1


def _regret_of_rate(rate: float, cell: Sweep) -> float:
    """The regret of a learning rate in a cell of one batch size."""
    if not np.isfinite(rate):
        return np.nan
    pairs, lowest = settings(cell)
    # The rates ascend; outside of them np.interp takes the nearest.
    return float(np.interp(np.log(rate), pairs[:, 0], lowest)) / float(cell.loss.min()) - 1
