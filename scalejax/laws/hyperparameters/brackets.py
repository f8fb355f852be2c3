"""Whether the sweep of a cell brackets the cell's best run."""

import numpy as np

from scalejax.laws.hyperparameters.sweep import Sweep


def unbracketed(
    cell: Sweep, swept: tuple[str, ...] = ("learning_rate", "batch_tokens")
) -> dict[str, str]:
    """Hyperparameters whose sweep does not bracket the best run, and why not.

    swept: those that must vary in the cell.
    """
    reasons = {}
    where = f"cell of {cell.params[0]:.3g} params and {cell.tokens[0]:.3g} tokens"
    # A sweep need not vary beta2.
    beta2_was_swept = len(np.unique(cell.beta2)) > 1
    for name in (*swept, *(("beta2",) if beta2_was_swept else ())):
        values = getattr(cell, name)
        # Rounded losses tie. The verdict does not depend on the order of the rows.
        best = values[cell.loss == cell.loss.min()]
        ends = {"smallest": values.min(), "largest": values.max()}
        if values.min() == values.max():
            reasons[name] = f"{where}: only one {name}, {best[0]:.3g}, was swept"
        elif at_ends := [end for end, value in ends.items() if value in best]:
            end = at_ends[0]
            reasons[name] = (
                f"{where}: the best run has the {end} {name} of the sweep, {ends[end]:.3g}"
            )
    return reasons


def bracketed_cells(name: str, unbracketed_of_cells: list[dict[str, str]]) -> int:
    """Number of cells whose sweep brackets the best value of a hyperparameter."""
    return sum(name not in of_cell for of_cell in unbracketed_of_cells)
