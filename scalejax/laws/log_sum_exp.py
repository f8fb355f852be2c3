"""The log-sum-exp law: a power term for each property of a run, above an irreducible loss.

log L = LSE(log A_1 - p_1 log x_1, .., log A_K - p_K log x_K, log E), that is L = E + sum_k A_k x_k^-p_k (McLeish et al. 2025,
Gemstones, arXiv 2502.06857). It is solved as the sum: the K sizes and E are linear given the K exponents, and E = 0 is a bound
instead of log E = -infinity.
"""

from typing import Any, NamedTuple

import jax

from scalejax.laws.forms import decay, logarithms
from scalejax.laws.law import EXPONENT, OFFSET, Decays, Number, ParametricLaw, scale

STARTS = (0.1, 0.25, 0.6, 1.5)  # of each exponent: 64 starts for three terms


class WidthDepth(NamedTuple):
    """L(w, d, D) = E + A_width w^-p_width + A_depth d^-p_depth + A_tokens D^-p_tokens: w width, d layers, D tokens.

    E: irreducible loss, nats per token, >= 0.  Sizes A: > 0.  Exponents p: > 0.
    """

    A_width: Number
    A_depth: Number
    A_tokens: Number
    E: Number
    p_width: Number
    p_depth: Number
    p_tokens: Number


def width_depth(**fixed: float) -> ParametricLaw:
    """The law of (width, depth, tokens)."""
    return log_sum_exp("width-depth", WidthDepth, ("width", "depth", "tokens")).hold(**fixed)


def log_sum_exp(name: str, form: Any, inputs: tuple[str, ...]) -> ParametricLaw:
    """A law with one term for each of K columns.

    form: NamedTuple class of K sizes in the order of the columns, E, and K exponents. (params, tokens) is Chinchilla.

    Raises ValueError when the form has not 2 K + 1 fields.
    """
    fields, terms = form._fields, len(inputs)
    if len(fields) != 2 * terms + 1:
        wanted = (
            f"a law of {', '.join(inputs)} has {2 * terms + 1} parameters (sizes, E, exponents)"
        )
        raise ValueError(f"{wanted}; got {', '.join(fields)}")
    exponents = fields[terms + 1 :]
    return ParametricLaw(
        name=name,
        form=form,
        predict=loss,
        inputs=inputs,
        axes=tuple(range(terms)),
        coordinates=(
            *(scale((p, axis, 1.0)) for axis, p in enumerate(exponents)),
            OFFSET,
            *(EXPONENT for _ in exponents),
        ),
        linear=Decays(fields[:terms], exponents, fields[terms], logarithms),
        grid=tuple((p, STARTS) for p in exponents),
    )


def loss(law: Any, *inputs: Number) -> jax.Array:
    """Predicted loss, nats per token; inputs broadcast."""
    terms = len(inputs)
    return law[terms] + sum(
        size * decay(x, p) for size, p, x in zip(law, law[terms + 1 :], inputs, strict=False)
    )
