"""Warnings about a study's design, given before any FLOP is spent."""

import contextlib
from collections.abc import Iterator, Sequence

from scalejax.config import Data, Run
from scalejax.data.preparation import epochs
from scalejax.grids import run_id
from scalejax.model.transformer import counts
from scalejax.optim.schedules import learning_rate
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
    warnings += _settings_without_effect([*study.runs, *study.forecast])
    passes = most_epochs(study)
    if passes > ONE_EPOCH:
        warnings.append(
            f"a run reads its training tokens up to {passes:.3g} times; use more text, unless "
            "repetition is what the study is about"
        )
    return warnings


def _settings_without_effect(runs: Sequence[Run]) -> Iterator[str]:
    """Which runs are too short for what their configuration says."""
    if flat := [run for run in runs if _never_falls(run)]:
        shapes = ", ".join(sorted({run.schedule.shape for run in flat}))
        yield (
            f"the learning rate of {len(flat)} run(s), such as {run_id(flat[0])}, never falls, "
            f"although the schedule is {shapes}: its decay takes less than two steps; lengthen "
            "it, train for more steps, or use the schedule constant"
        )
    short = [run for run in runs if run.batch_schedule.phases[-1].first_step >= run.steps]
    if short:
        yield (
            f"the batch of {len(short)} run(s), such as {run_id(short[0])}, never reaches "
            "batch_tokens, because a doubling comes after the end of the run; train for more "
            "tokens, or remove that doubling and halve batch_tokens"
        )


def _never_falls(run: Run) -> bool:
    """Whether a schedule with a decay stays at the peak after its warmup."""
    schedule = run.schedule
    if schedule.shape == "constant" or (schedule.shape == "wsd" and not schedule.cooldown):
        return False
    # Every step of a shorter period is at, or next to, a peak.
    if schedule.shape == "cyclic":
        return schedule.period < 2 * run.batch_tokens
    rate = learning_rate(
        schedule,
        peak=run.optimizer.learning_rate,
        steps=run.steps,
        batch_tokens=run.batch_tokens,
        batch_doublings=run.batch_doublings,
    )
    # Every other schedule falls, if at all, towards the end.
    return float(rate(run.steps - 1)) >= run.optimizer.learning_rate


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
