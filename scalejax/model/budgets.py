"""Token budgets in units of the model's size."""

from collections.abc import Callable

from scalejax.config import Run
from scalejax.model.transformer import counts


def per_param(ratio: float, *, count: str = "params_with_head") -> Callable[[Run], float]:
    """A grid axis: `ratio` tokens per parameter, `tokens=per_param(20)` (Hoffmann et al. 2022 find about 20 optimal).

    `count` names the parameters that are counted: `params_with_head`, `params_non_embedding` or `params`.
    Raises ValueError for another count or a ratio that is not positive.
    """
    if count not in ("params_with_head", "params_non_embedding", "params"):
        raise ValueError(
            f"count is params_with_head, params_non_embedding or params; got {count!r}"
        )
    if not ratio > 0:
        raise ValueError(f"tokens per parameter must be positive; got {ratio!r}")
    return lambda run: float(ratio * getattr(counts(run.model), count))
