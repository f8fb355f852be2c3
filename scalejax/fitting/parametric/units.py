"""Checks what a law says about its units by evaluating it in two of them."""

from typing import Any

import jax
import numpy as np

from scalejax.laws.law import ParametricLaw
from scalejax.laws.solver.multistart import Optimum
from scalejax.laws.solver.problem import (
    coordinates_at,
    parameters_in_centred_units,
    parameters_in_table_units,
)

# Rounding moves predictions by less than this, relatively.
TOLERANCE = 1e-6


def check_units(law: ParametricLaw[Any], at: Optimum, inputs: list[np.ndarray]) -> None:
    """Raise ValueError when a law of the user's own changes its shape with a unit.

    The solver works in centred units. At its optimum, the law must predict the same
    there and in the table's units; the same with the unit of one input changed shows
    which one is at fault.

    inputs: of the fitted rows, in the table's units.
    """
    # The laws of this package have tests for it.
    if law.form.__module__.startswith("scalejax.laws."):
        return
    rows = len(inputs[0])
    centred = [np.asarray(x)[:rows] for x in at.problem.inputs]
    with jax.enable_x64(True):
        coordinates = coordinates_at(at.problem, np.asarray(at.theta)[:, None])[:, 0]
        expected = np.asarray(
            law.predict(parameters_in_centred_units(law, coordinates), *centred), np.float64
        )
        wrong = []
        for axis in range(max(law.axes) + 1):
            # Only this axis is in the table's unit.
            centre = np.where(np.arange(len(at.problem.centre)) == axis, at.problem.centre, 0.0)
            problem = at.problem._replace(centre=centre)
            params = parameters_in_table_units(law, problem, np.asarray(at.theta)[:, None])
            scalars = law.form._make(float(np.ravel(value)[0]) for value in params)
            changed = [
                x if own == axis else y for x, y, own in zip(inputs, centred, law.axes, strict=True)
            ]
            predicted = np.asarray(law.predict(scalars, *changed), np.float64)
            if not np.allclose(predicted, expected, rtol=TOLERANCE, equal_nan=True):
                wrong += [
                    name for name, own in zip(law.inputs, law.axes, strict=True) if own == axis
                ]
    if wrong:
        raise ValueError(
            f"the {law.name} law changes its shape with the unit of {', '.join(wrong)}: its "
            "parameters, converted by the `units` of their coordinates, predict something else in "
            "the table's unit than in the solver's. Correct `units`, or keep the table's unit with "
            f"ParametricLaw(..., raw={tuple(wrong)!r})"
        )
