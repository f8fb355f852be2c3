"""The log-sum-exp law: an irreducible loss plus one power term per property of a run.

log L = LSE(log A_1 - p_1 log x_1, ..., log A_K - p_K log x_K, log E), which is L = E +
sum_k A_k x_k^-p_k (McLeish et al. 2025, Gemstones, arXiv 2502.06857). The solver works
with the sum: the K sizes and E are linear given the K exponents, and E = 0 is a bound
instead of log E = -infinity.
"""

from typing import Any, NamedTuple

from jaxtyping import Array, Real

from scalejax.laws.forms import decay, logarithms
from scalejax.laws.law import (
    EXPONENT,
    OFFSET,
    Decays,
    F,
    Number,
    ParametricLaw,
    scale,
)

# Starting values of each exponent: 64 starts for three terms.
EXPONENT_STARTS = (0.1, 0.25, 0.6, 1.5)


class WidthDepth(NamedTuple):
    """L(w, d, D) = E + A_width w^-p_width + A_depth d^-p_depth + A_tokens D^-p_tokens.

    w: width.  d: layers.  D: tokens.  E: irreducible loss, nats per token, >= 0.
    Sizes A: > 0.  Exponents p: > 0.
    """

    A_width: Number
    A_depth: Number
    A_tokens: Number
    E: Number
    p_width: Number
    p_depth: Number
    p_tokens: Number


def width_depth(**fixed: float) -> ParametricLaw[WidthDepth]:
    """Return the law of (width, depth, tokens).

    fixed: parameters to hold at a value.
    """
    return log_sum_exp("width-depth", WidthDepth, ("width", "depth", "tokens")).hold(**fixed)


def log_sum_exp(name: str, form: type[F], inputs: tuple[str, ...]) -> ParametricLaw[F]:
    """Return a law with one power term for each of K columns.

    name: the law's name in messages and files.  form: NamedTuple class of K sizes in
    the order of the columns, then E, then K exponents.  inputs: the columns.

    With Chinchilla as the form and (params, tokens) as the columns, it is Chinchilla's
    law.

    Raises ValueError when the form does not have 2 K + 1 fields.
    """
    fields, terms = form._fields, len(inputs)
    if len(fields) != 2 * terms + 1:
        raise ValueError(
            f"a law of {', '.join(inputs)} has {2 * terms + 1} parameters "
            f"(sizes, E, exponents); got {', '.join(fields)}"
        )
    exponents = fields[terms + 1 :]
    sizes = (scale((exponent, axis, 1.0)) for axis, exponent in enumerate(exponents))
    return ParametricLaw(
        name=name,
        form=form,
        predict=loss,
        inputs=inputs,
        axes=tuple(range(terms)),
        coordinates=(*sizes, OFFSET, *(EXPONENT for _ in exponents)),
        linear=Decays(fields[:terms], exponents, fields[terms], logarithms),
        grid=tuple((exponent, EXPONENT_STARTS) for exponent in exponents),
    )


def loss(law: tuple[Any, ...], *inputs: Number) -> Real[Array, "..."]:
    """Return the predicted loss, nats per token.

    law: NamedTuple of sizes, E and exponents, as in `log_sum_exp`.  inputs: one array
    per term; they broadcast.
    """
    terms = len(inputs)
    sizes, offset, exponents = law[:terms], law[terms], law[terms + 1 :]
    return offset + sum(
        size * decay(x, exponent)
        for size, exponent, x in zip(sizes, exponents, inputs, strict=True)
    )
