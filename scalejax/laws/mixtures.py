"""The loss on a corpus against the training mixture (Ye et al. 2024)."""

from collections import namedtuple
from collections.abc import Sequence
from functools import cache
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Real

from scalejax.laws.law import OFFSET, Coordinate, Linear, Number, ParametricLaw

# A law of this name is followed by its domains: mixture:web,code,books.
PREFIX = "mixture:"

# k is the term of a run on the first domain by itself, which may be far from all runs.
# There it is smaller or larger than where they are by as much as exponents allow.
K = Coordinate(-64.0, 64.0, log=True, scale=True)

# Starting values of each exponent, in nats per unit of proportion.
STARTS = (-3.0, -0.5)

# With more domains than this, all exponents start at the same value.
MAX_GRID_DOMAINS = 5

FORMULA = """L(r) = c + k exp(sum_j t_j r_j), of proportions r_j (arXiv 2403.16952, eq. 6).

c: >= 0.  k: > 0.  t_j: of every domain but the first, of either sign. Proportions add
up to one, so only differences between the t_j can be known: that of the first is zero.
"""


def mixture(domains: Sequence[str], **fixed: float) -> ParametricLaw[Any]:
    """Return the law of the loss against the proportions of a training mixture.

    domains: the columns of the proportions, two or more, each between 0 and 1; a row's
    proportions add up to one. Proportions may be zero.  fixed: parameters to hold at a
    value.

    >>> mixture(("web", "code", "books")).names
    ('c', 'k', 't_code', 't_books')

    Raises ValueError for fewer than two domains, or for a domain that is named twice.
    """
    names = tuple(name.strip() for name in domains)
    if len(names) < 2 or len({*names}) < len(names) or not all(names):
        raise ValueError(
            "a mixture law reads the proportions of two or more different domains, such as "
            f"{PREFIX}web,code,books; got {PREFIX}{','.join(names)}"
        )
    return _mixture(names).hold(**fixed)


# The solver caches compiled programs by the law's form, so equal domains share one.
@cache
def _mixture(domains: tuple[str, ...]) -> ParametricLaw[Any]:
    exponents = tuple(f"t_{name}" for name in domains[1:])
    form = namedtuple("Mixture", ("c", "k", *exponents), module=__name__)
    form.__doc__ = FORMULA
    starts = STARTS if len(domains) <= MAX_GRID_DOMAINS else STARTS[-1:]
    return ParametricLaw(
        name=PREFIX + ",".join(domains),
        form=form,
        predict=_loss,
        inputs=domains,
        axes=tuple(range(len(domains))),
        raw=domains,
        shares=True,
        coordinates=(OFFSET, K, *(Coordinate(-50.0, 50.0) for _ in exponents)),
        linear=Linear(("c", "k"), _columns),
        grid=tuple((name, starts) for name in exponents),
    )


def _loss(law: tuple[Any, ...], *proportions: Number) -> Real[Array, "..."]:
    """Return the predicted loss of a mixture, nats per token."""
    return jnp.asarray(law[0] + law[1] * _columns(law, *proportions)[1])


def _columns(law: tuple[Any, ...], *proportions: Number) -> tuple[Number, Number]:
    """Return the factors of c and k."""
    # The exponent of the first domain is zero.
    terms = (t * r for t, r in zip(law[2:], proportions[1:], strict=True))
    return 1.0, jnp.exp(sum(terms, jnp.zeros(())))
