"""Warnings about a study's design, given before any FLOP is spent."""

import contextlib
from collections.abc import Iterator

from scalejax.config import Data
from scalejax.data.preparation import epochs
from scalejax.model.transformer import counts
from scalejax.study.study import Study

# The number of different values of an input that its exponent needs: two give a line
# and no way to tell the exponent from the irreducible loss.
VALUES_FOR_AN_EXPONENT = 3
# Tokens per parameter count as constant if they vary by less than this factor. Rounding
# budgets to whole batches changes them a little.
CONSTANT_RATIO = 1.01
# Reading the data this many times counts as once, because budgets are rounded up to
# whole batches.
ONE_EPOCH = 1.001


def plan_warnings(study: Study) -> list[str]:
    """Why the laws of a study may be hard to identify, or its losses hard to compare.

    Each warning says what the runs do and what to do instead.
    """
    warnings = []
    if any(law.name == "chinchilla" for law in study.laws):
        warnings += _chinchilla_warnings(study)
    if len({run.schedule.warmup for run in study.runs}) > 1:
        warnings.append(
            "the runs differ in warmup; give all of them the same number of warmup tokens, "
            "unless warmup is what the study is about"
        )
    passes = most_epochs(study)
    if passes > ONE_EPOCH:
        warnings.append(
            f"a run reads its training tokens up to {passes:.3g} times; use more text, unless "
            "repetition is what the study is about"
        )
    return warnings


def most_epochs(study: Study) -> float:
    """The largest number of times that any run, fitted or forecast, reads its data.

    Data that is not prepared yet has no known size and is left out; 0 if none is
    prepared.
    """
    most_tokens: dict[Data, float] = {}
    for run in [*study.runs, *study.forecast]:
        most_tokens[run.data] = max(run.tokens_read, most_tokens.get(run.data, 0))
    passes = [0.0]
    for data, tokens in most_tokens.items():
        # A plan may be made on a machine that does not have the data. The machine that
        # trains reports a source that cannot be read.
        with contextlib.suppress(ValueError):
            passes.append(epochs(data, tokens) or 0)
    return max(passes)


def _chinchilla_warnings(study: Study) -> Iterator[str]:
    """Why these runs may not identify the exponents of a chinchilla law."""
    sizes = [counts(run.model).params_with_head for run in study.runs]
    budgets = [run.tokens for run in study.runs]
    ratios = [tokens / size for tokens, size in zip(budgets, sizes, strict=True)]
    if len(ratios) > 2 and max(ratios) < CONSTANT_RATIO * min(ratios):
        yield (
            "tokens per parameter is constant, so alpha and beta cannot be told apart; train "
            "several model sizes on the same token budgets"
        )
    if len(set(sizes)) < VALUES_FOR_AN_EXPONENT:
        yield (
            f"the number of different model sizes is {len(set(sizes))}, but alpha, the exponent "
            f"of size, needs at least {VALUES_FOR_AN_EXPONENT}; add sizes"
        )
    if len(set(budgets)) < VALUES_FOR_AN_EXPONENT:
        yield (
            f"the number of different token budgets is {len(set(budgets))}, but beta, the "
            f"exponent of tokens, needs at least {VALUES_FOR_AN_EXPONENT}; add budgets"
        )
