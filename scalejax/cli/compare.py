"""`scalejax compare`: how much compute one recipe saves over another."""

import sys
from dataclasses import dataclass

from tyro.conf import Positional

from scalejax.cli import compile_cache, exit_codes
from scalejax.cli.fit import parse_pairs
from scalejax.cli.numbers import Number, read_number


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Say how much compute recipe or corpus B saves over A at equal loss."""

    # Runs of A: a table as for `scalejax fit`, or the folder of a study.
    a: Positional[str]

    # Runs of B, in the same units and with the same column names.
    b: Positional[str]

    # Law to fit to both: one of params and tokens, such as chinchilla, or power on
    # flops. A law of your own is FILE.py:NAME.
    law: str

    # Training budgets of B at which to compare, separated by commas. By default the
    # ends and the middle of the range that both tables cover. Example: 1e19,1e20.
    flops: str = ""

    # Compare at this ratio of tokens to parameters. By default every budget is spent at
    # the optimum of each law.
    tokens_per_param: Number = None

    # Columns that have other names or units in both tables, as pairs, as for
    # `scalejax fit`. Example: loss=bits_per_byte.
    columns: str = ""

    # Use only the rows for which this expression holds, as for `scalejax fit`.
    where: str | None = None

    # Loss function that the fits minimize, as for `scalejax fit`.
    loss: str = "huber:1e-3"

    # Number of joint draws behind the 95% intervals.
    draws: int = 1000

    # Seed of the draws.
    seed: int = 0

    # Exit with 1 unless the lower end of every gain in the loss is at least this.
    # Example: 1.1 asks for 10% of the compute.
    require: Number = None

    # File for a figure of the gains. Its suffix is .png, .svg or .html.
    plot: str | None = None

    # Print one JSON object instead of text.
    json: bool = False

    def run(self) -> int:
        compile_cache.enable()
        from scalejax.cli.law_files import find_law
        from scalejax.cli.text import as_json
        from scalejax.fitting.charts.write import check_suffix
        from scalejax.fitting.comparison.compare import compare

        if self.plot:
            check_suffix(self.plot)
        result = compare(
            self.a,
            self.b,
            find_law(self.law),
            flops=self._budgets(),
            tokens_per_param=self.tokens_per_param,
            columns=parse_pairs(self.columns, "--columns"),
            where=self.where,
            loss=self.loss,
            draws=self.draws,
            seed=self.seed,
        )
        if self.plot:
            result.plot(self.plot)
        print(as_json(result.summary()) if self.json else result)
        shortfalls = [] if self.require is None else result.shortfalls(self.require)
        for gain in shortfalls:
            low = "open" if gain.low is None else f"{gain.low:.4g}"
            print(
                f"scalejax: the lower end at {gain.flops:.3g} FLOPs is {low}, and --require asks "
                f"for {self.require:g}",
                file=sys.stderr,
            )
        return exit_codes.FAILED if shortfalls else exit_codes.DONE

    def _budgets(self) -> list[float] | None:
        if not self.flops:
            return None
        try:
            return [read_number(text) for text in self.flops.split(",")]
        except ValueError as error:
            raise ValueError(
                f"--flops takes numbers separated by commas, such as 1e19,1e20; got {self.flops!r}"
            ) from error
