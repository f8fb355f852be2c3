"""`scalejax fit` and `scalejax predict`: laws from tables of runs."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from scalejax.cli import compile_cache, exit_codes
from scalejax.cli.numbers import Number, read_number

if TYPE_CHECKING:
    from pandas import DataFrame

    from scalejax.fitting.result import Fit as FitOfLaw
    from scalejax.laws.law import Law

# One NAME=VALUE of a flag. A comma inside of backticks belongs to a column's name.
PAIR = re.compile(r"(?:`[^`]*`|[^,`])+|`")

# The group of the rows that have no value in the column of `--by`.
NO_VALUE = "(no value)"


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Fit a scaling law to a table of runs."""

    # Table of runs with one row per run, as a CSV, TSV, JSON, JSON-lines or Parquet
    # file. A whole-curve law needs one row per evaluation instead.
    table: Positional[str]

    # Law to fit: chinchilla, kaplan, overtraining, interaction, farseer, power,
    # broken-power, data-constrained, width-depth, routed, mixture:DOMAIN,DOMAIN,
    # downstream, sigmoid, loss-to-loss, timescale, best-batch, critical-batch,
    # annealing, annealing-size, multipower, isoflop or hyperparameters. A law of your
    # own is FILE.py:NAME.
    law: str

    # Columns that have other names or units in this table than in the law, as pairs
    # LAW_NAME=TABLE_NAME or LAW_NAME=EXPRESSION. An expression is arithmetic on the
    # table's columns, with log, log2, log10, exp and sqrt. Put a name of several words
    # in backticks. Examples: params=N,tokens=D,loss=L and params=N*1e6,loss=log(ppl).
    columns: str = ""

    # Use only the rows for which this expression holds. It compares the table's own
    # columns with literals and may use and, or, not and brackets. Put a name of several
    # words in backticks. Example: "tokens >= 1e9 and `data set` == 'c4'". To choose the
    # last row of each run, write last(run, step).
    where: str | None = None

    # Of the rows that are used, keep those for which this expression holds out of the
    # fit, and report how well the fit predicts them. Example: "params > 1e9".
    holdout: str | None = None

    # Loss function that the fit minimizes: huber:DELTA, lad (least absolute deviation),
    # mse, log-mse or asymmetric:FACTOR.
    loss: str = "huber:1e-3"

    # Number of bootstrap resamples behind the 95% confidence intervals. By default 1000
    # where that takes seconds; the fit says where it makes fewer. With 0 there are no
    # intervals.
    bootstrap: int | None = None

    # Column of row weights. A row of weight 2 counts as two rows.
    weights: str | None = None

    # Column that groups rows which are not independent of each other. Rows with equal
    # values are resampled together.
    cluster: str | None = None

    # Seed of the bootstrap. The same seed gives the same intervals.
    seed: int = 0

    # Parameters that are held at a value, as pairs NAME=VALUE. Example:
    # E=1.69,alpha=0.34.
    fix: str = ""

    # JSON file to save the fit in, for `scalejax predict`. Example: fit.json.
    out: str | None = None

    # For whole-curve laws: table of the learning rate at every step, with the columns
    # curve, step and learning_rate.
    schedules: str | None = None

    # For the isoflop law: how the minimum of each isoFLOP curve is found, parabola (the
    # default) or akima.
    protocol: Literal["parabola", "akima"] | None = None

    # For the isoflop law: standard deviation of the loss in nats per token, as one
    # number or as pairs STD@LOSS. Examples: 0.002 and 0.002@3,0.05@7.
    noise: str | None = None

    # File for a figure of the law and the runs. Its suffix is .png, .svg or .html.
    plot: str | None = None

    # Print the parameters as a table for a paper or a page instead of text.
    table_format: Annotated[Literal["latex", "markdown"] | None, tyro.conf.arg(name="table")] = None

    # Column whose values each get a fit of their own. Prints one table of all fits, and
    # names the values whose rows cannot be fitted.
    by: str | None = None

    # Print one JSON object instead of text.
    json: bool = False

    def run(self) -> int:
        compile_cache.enable()
        from scalejax.cli.law_files import find_law
        from scalejax.cli.text import as_json
        from scalejax.cli.text.fit import fit_text
        from scalejax.fitting import tables
        from scalejax.fitting.charts.write import check_suffix

        if self.plot:
            check_suffix(self.plot)
        fixed = {
            name: read_number(value, f"--fix {name}=VALUE")
            for name, value in parse_pairs(self.fix, "--fix").items()
        }
        law = find_law(self.law).hold(**fixed)
        if self.by is not None:
            return self._run_groups(tables.read(self.table), law)
        fit = self._fit(self.table, law)
        if self.plot:
            fit.plot(self.plot)
        if self.out:
            fit.save(self.out)
        if self.table_format:
            print(fit.table(self.table_format))
        else:
            print(as_json(fit.summary()) if self.json else fit_text(fit))
        return exit_codes.DONE

    def _run_groups(self, frame: "DataFrame", law: "Law") -> int:
        """Fit every group of rows by itself, and print one table."""
        from scalejax.cli.text import as_json
        from scalejax.cli.text.fit import groups_text
        from scalejax.fitting import expressions, tables

        if self.out or self.plot:
            raise ValueError("--by prints one table and writes no file; remove --out and --plot")
        assert self.by is not None
        column = tables.column_for(frame, self.by)
        # Groups without a chosen row are none, and rows without a value are one.
        chosen = expressions.chosen_rows(frame, self.where)
        names = chosen[column].astype(object).where(chosen[column].notna(), NO_VALUE)
        # Records may hold 1 and "1", which one row of the table must stand for.
        labels = names.astype(str)
        ordered = sorted(names.unique(), key=lambda x: (isinstance(x, str), x))
        fitted, unfitted = {}, {}
        for value in dict.fromkeys(map(str, ordered)):
            try:
                fitted[value] = self._fit(chosen.loc[labels == value], law)
            except ValueError as error:
                unfitted[value] = (
                    f"{error} (in the rows whose {column} is {value}, which --where can leave out)"
                )
        if not fitted:
            raise ValueError(next(iter(unfitted.values())))
        if self.json:
            records = {name: fit.summary() for name, fit in fitted.items()}
            print(as_json(records | {name: {"error": why} for name, why in unfitted.items()}))
        else:
            print(groups_text(self.by, fitted, self.table_format))
        # The other groups are worth reading all the same.
        for why in unfitted.values():
            print(f"scalejax: {why}", file=sys.stderr)
        return exit_codes.BAD_INPUT if unfitted else exit_codes.DONE

    def _fit(self, table: "str | DataFrame", law: "Law") -> "FitOfLaw[Any]":
        from scalejax.fitting import fit as fits

        return fits.fit(
            table,
            law,
            loss=self.loss,
            where=self.where,
            holdout=self.holdout,
            weights=self.weights,
            cluster=self.cluster,
            bootstrap=self.bootstrap,
            seed=self.seed,
            columns=parse_pairs(self.columns, "--columns"),
            schedules=self.schedules,
            protocol=self.protocol,
            noise=self.noise,
        )


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Predict what a run will measure, with a 95% interval, from a saved fit."""

    # File that `scalejax fit --out` wrote.
    fit: Positional[str]

    # Number of parameters of the run, counted as in the fitted table. Example: 7B, or
    # 7e9.
    params: Number = None

    # Number of training tokens. Example: 1.4e11.
    tokens: Number = None

    # Number of different training tokens, for the data-constrained law.
    unique_tokens: Number = None

    # Training FLOPs: predicts the compute-optimal run for a law of params and tokens
    # and for the isoflop law, and is the input of a power law of flops. Example:
    # 5.88e23.
    flops: Number = None

    # Loss in nats per token, for laws of the error against the loss. For a law of the
    # loss it asks which run reaches it: give it with --tokens for the params, with
    # --params for the tokens, or by itself for the cheapest run; for the isoflop law,
    # which budget does. Example: 2.1.
    loss: Number = None

    # Width of the model, for the width-depth law. Example: 1024.
    width: Number = None

    # Number of layers of the model, for the width-depth law. Example: 16.
    depth: Number = None

    # Other inputs, of a law of your own, as pairs NAME=VALUE. Example: web=0.5.
    inputs: str = ""

    # The law of your own that was fitted, as FILE.py:NAME. No saved fit holds it.
    law: str | None = None

    # Folder of a planned run, OUT/<study>/runs/<id>. Predicts its loss from its own
    # size and tokens, and registers the forecast in the study's ledger. A run that has
    # started is refused.
    register: Path | None = None

    # Print one JSON object instead of text.
    json: bool = False

    def run(self) -> int:
        compile_cache.enable()
        from scalejax.cli.law_files import find_law
        from scalejax.cli.text import as_json
        from scalejax.cli.text.fit import forecast_text, registered_text
        from scalejax.fitting import fit as fits

        inputs = {
            "params": self.params,
            "tokens": self.tokens,
            "unique_tokens": self.unique_tokens,
            "flops": self.flops,
            "loss": self.loss,
            "width": self.width,
            "depth": self.depth,
        }
        given = {name: value for name, value in inputs.items() if value is not None}
        others = parse_pairs(self.inputs, "--inputs").items()
        given |= {name: read_number(value, f"--inputs {name}=VALUE") for name, value in others}
        own = find_law(self.law) if self.law else None
        if self.register:
            if given:
                raise ValueError(
                    "--register takes the inputs from the run's plan; remove "
                    f"--{' and --'.join(name.replace('_', '-') for name in given)}"
                )
            from scalejax.study.fits import register_run

            estimate = register_run(self.register, Path(self.fit), own)
            print(as_json(estimate._asdict()) if self.json else registered_text(estimate))
            return exit_codes.DONE
        forecast = fits.load(self.fit, own).forecast(**given)
        print(as_json(forecast.summary()) if self.json else forecast_text(forecast))
        return exit_codes.DONE


def parse_pairs(text: str, flag: str) -> dict[str, str]:
    """The pairs of a flag such as `--columns params=N,tokens=D`.

    Raises ValueError if an item is not a pair, or if a name is given twice.

    >>> parse_pairs("params=N, loss=`val, loss`", "--columns")
    {'params': 'N', 'loss': '`val, loss`'}
    """
    pairs: dict[str, str] = {}
    for item in PAIR.findall(text):
        if not item.strip():
            continue
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ValueError(f"{flag} takes NAME=VALUE,NAME=VALUE; got {item.strip()!r}")
        if name in pairs:
            raise ValueError(f"{flag} gives {name} twice: {text}; remove one of the two")
        pairs[name] = value
    return pairs
