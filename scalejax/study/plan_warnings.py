"""Warnings about a study's design, given before any FLOP is spent."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from scalejax.config import Data, Run
from scalejax.data.preparation import epochs
from scalejax.grids import run_id
from scalejax.model.transformer import counts
from scalejax.optim.schedules import constant, learning_rate, learning_rates
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
    warnings += _windows_of_other_lengths(study)
    warnings += _equal_runs([*study.runs, *study.forecast])
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


def _windows_of_other_lengths(study: Study) -> Iterator[str]:
    """Which averages over a window cannot be over the tokens in their name."""
    runs = [*study.runs, *study.forecast]
    for average in study.measure.averages:
        if average.kind != "window":
            continue
        if long := [run for run in runs if average.tokens > run.tokens_read]:
            yield (
                f"{len(long)} run(s), such as {run_id(long[0])}, are shorter than {average.name}, "
                "which is then the mean of all steps, the first ones included; use a shorter window"
            )
        if short := [run for run in runs if average.tokens < run.batch_tokens]:
            yield (
                f"a step of {len(short)} run(s), such as {run_id(short[0])}, takes more tokens "
                f"than {average.name}, which then is no average; use a longer window"
            )


def _equal_runs(runs: Sequence[Run]) -> Iterator[str]:
    """Which runs differ in numbers only that change no step.

    Their results are copies of each other, which a law takes for independent ones.
    """
    alike: dict[object, list[Run]] = defaultdict(list)
    for run in dict.fromkeys(runs):
        alike[run.replace(schedule=constant(warmup=0), tokens=run.tokens_read)].append(run)
    copies: dict[object, list[str]] = defaultdict(list)
    # Most runs are like no other one, and their rates need not be computed.
    for settings, group in alike.items():
        for run in group if len(group) > 1 else []:
            copies[settings, learning_rates(run).tobytes()].append(run_id(run))
    if same := [ids for ids in copies.values() if len(ids) > 1]:
        yield (
            f"{sum(map(len, same))} run(s) take the same steps as another one, such as "
            f"{' and '.join(same[0][:2])}: their schedules or tokens differ by too little to "
            "change any step, so that their results are copies; keep one of each, or change them "
            "by more"
        )


def most_epochs(study: Study) -> float:
    """The largest number of times that any run, fitted or forecast, reads its data.

    Data that is not prepared yet has no known size and is left out; 0 if none is
    prepared. Raises ValueError for a mixture of domains that the data do not have.
    """
    most_tokens: dict[Data, float] = {}
    for run in [*study.runs, *study.forecast]:
        most_tokens[run.data] = max(run.tokens_read, most_tokens.get(run.data, 0))
    passes = [0.0]
    for data, tokens in most_tokens.items():
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
