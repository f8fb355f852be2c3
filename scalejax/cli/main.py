"""The command line: where and how, never what. One dataclass per verb, its fields the flags, its `run` the body.

To add a verb: write the dataclass with a docstring and `run() -> int` (the exit code), and name it in VERBS.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from tyro.conf import Positional


def _show(record: dict[str, Any]) -> int:
    print(json.dumps(record, allow_nan=False))
    return 0


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Fit a scaling law to a table of runs."""

    table: Positional[str]
    """CSV or Parquet, one row per run (whole-curve laws: one row per evaluation)."""
    law: str
    """chinchilla, kaplan, overtraining, power, data-constrained, downstream, .."""
    columns: str = ""
    """OUR=THEIRS,..: names of this table's columns, e.g. params=N,tokens=D,loss=L."""
    where: str | None = None
    """Rows used: COLUMN OP LITERAL joined by and, or, not; columns by the table's own names (`two words` in backticks)."""
    holdout: str | None = None
    """Rows, among those, kept out of the fit and scored."""
    loss: str = "huber:1e-3"
    """huber:DELTA, lad, mse, log-mse or asymmetric:FACTOR."""
    bootstrap: int = 0
    """Bootstrap draws; 0: no intervals."""
    cluster: str | None = None
    """Column whose equal values are drawn together."""
    seed: int = 0
    """The same seed gives the same numbers."""
    fix: str = ""
    """NAME=VALUE,..: parameters held at a value."""
    out: str | None = None
    """File for the fit, read by `scalejax predict`."""
    schedules: str | None = None
    """Whole-curve laws: table of every step's rate (curve, step, learning_rate)."""
    protocol: str | None = None
    """isoflop: akima or parabola."""
    noise: str | None = None
    """isoflop: standard deviation of the loss, in nats, or STD@LOSS,STD@LOSS."""
    json: bool = False
    """Print one JSON object."""

    def run(self) -> int:
        _cache_programs()
        from scalejax import laws
        from scalejax.cli.fit_text import fit_text
        from scalejax.fitting import fit as fits

        fixed = {name: _number(name, value) for name, value in _pairs(self.fix, "--fix").items()}
        given = {"schedules": self.schedules, "protocol": self.protocol, "noise": self.noise}
        fitted = fits.fit(
            self.table,
            laws.named(self.law).hold(**fixed),
            loss=self.loss,
            where=self.where,
            holdout=self.holdout,
            cluster=self.cluster,
            bootstrap=self.bootstrap,
            seed=self.seed,
            columns=_pairs(self.columns, "--columns"),
            **{name: value for name, value in given.items() if value is not None},
        )
        if self.out:
            fitted.save(self.out)
        if self.json:
            return _show(fitted.summary())
        print(fit_text(fitted))
        return 0


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Predict a run from a fit, with a 95% interval for what the run will measure."""

    fit: Positional[str]
    """File written by `scalejax fit --out`."""
    params: float | None = None
    """Parameters of the run, in the count that the fit names."""
    tokens: float | None = None
    """Training tokens."""
    unique_tokens: float | None = None
    """Unique tokens, for the data-constrained law."""
    flops: float | None = None
    """Training FLOPs: the compute-optimal run, or the input of a power law of flops."""
    loss: float | None = None
    """Loss in nats per token, for the laws of error against loss."""
    width: float | None = None
    """Width of the model, for the width-depth law."""
    depth: float | None = None
    """Layers of the model, for the width-depth law."""
    json: bool = False
    """Print one JSON object."""

    def run(self) -> int:
        _cache_programs()
        from scalejax.cli.fit_text import forecast_text
        from scalejax.fitting import fit as fits

        names = ("params", "tokens", "unique_tokens", "flops", "loss", "width", "depth")
        forecast = fits.forecast(
            fits.load(self.fit),
            **{name: x for name in names if (x := getattr(self, name)) is not None},
        )
        if self.json:
            return _show(forecast)
        print(forecast_text(forecast))
        return 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Show what a study would train, what its runs share and what it costs."""

    study: Positional[str]
    """FILE.py, or FILE.py:NAME for another study in it than `study`."""
    json: bool = False
    """Print one JSON object."""

    def run(self) -> int:
        from scalejax.cli import text as console
        from scalejax.study import experiment, plan

        study, _ = experiment.load_study(self.study)
        planned = plan.plan(study)
        if self.json:
            return _show(planned.summary())
        print(console.plan_text(planned))
        return 0


@dataclass(frozen=True, kw_only=True)
class Run:
    """Train a study, fit its laws, forecast, score, report; goes on where it was stopped."""

    study: Positional[str]
    """FILE.py, or FILE.py:NAME for another study in it than `study`."""
    out: Path = Path("results")
    """Folder of all studies; this one gets OUT/<its name>."""
    devices: int | None = None
    """Workers: cores on CPU; all that are free when not given."""

    def run(self) -> int:
        _cache_programs()
        from scalejax.cli import text as console
        from scalejax.study import experiment
        from scalejax.study import run as execution

        study, question = experiment.load_study(self.study)
        conclusion = execution.run_study(study, self.out, question, self.devices)
        if conclusion.outcome.preempted:
            print(
                f"stopped; every run is saved: the same command goes on ({conclusion.folder})",
                file=sys.stderr,
            )
        else:
            print(console.conclusion_text(conclusion))
        return conclusion.exit_code


@dataclass(frozen=True, kw_only=True)
class Status:
    """Show the state of every run of a study."""

    study: Positional[str]
    """FILE.py or FILE.py:NAME."""
    out: Path = Path("results")
    """Folder of all studies."""
    json: bool = False
    """Print one JSON object."""

    def run(self) -> int:
        from scalejax.cli import text as console
        from scalejax.study import experiment, plan

        study, _ = experiment.load_study(self.study)
        state = console.status(plan.plan(study), self.out / study.name)
        if self.json:
            return _show(state)
        print(console.status_text(state))
        return 0


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure the last checkpoint of a run: held-out loss, or a suite of downstream tasks."""

    run_folder: Positional[Path]
    """OUT/<study>/runs/<id>, or `out` of train()."""
    suite: str | None = None
    """continuation, foundry-17 or foundry-46 (:FOLDER of the task files), foundry-17-available, or local:PATH.
    When not given: what the run itself measured."""
    out: Path | None = None
    """Folder for the scores, <suite>/<task>.parquet and <suite>.json; RUN/evaluations when not given."""
    window: int | None = None
    """Tokens of a prompt with its answer; the run's sequence length when not given."""
    json: bool = False
    """Print one JSON object."""

    def run(self) -> int:
        _cache_programs()
        from scalejax.study import evaluations

        if self.suite is None:
            if self.out or self.window:
                raise ValueError("--out and --window are for a suite: add --suite")
            row = evaluations.measured(self.run_folder)
            if self.json:
                return _show(row)
            print(evaluations.row_text(row))
            return 0
        summary = evaluations.suite(self.run_folder, self.suite, out=self.out, window=self.window)
        if self.json:
            return _show(summary)
        print(evaluations.text(summary))
        return 0


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the report page of a study that was run."""

    folder: Positional[Path]
    """OUT/<study>."""

    def run(self) -> int:
        from scalejax.report import write as report

        print(report.write_report(self.folder))
        return 0


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the last checkpoint of a run as a model of another library, checked to give the same logits."""

    run_folder: Positional[Path]
    """OUT/<study>/runs/<id>, or `out` of train()."""
    out: Path
    """A new folder."""
    format: Literal["hf"] = "hf"
    """hf: config.json, safetensors and tokenizer, as `transformers` loads them."""

    def run(self) -> int:
        _cache_programs()
        from scalejax.training import export

        print(export.text(export.export_hf(self.run_folder, self.out), self.out))
        return 0


@dataclass(frozen=True, kw_only=True)
class Data:
    """Prepare a corpus (clean, deduplicate, split, tokenize, write token shards once), or look for test items in it."""

    action: Positional[Literal["prepare", "contamination"]]
    """prepare, or contamination: which of --items share 13 tokens in a row with the training tokens?"""
    source: str = "english"
    """english, mini, synthetic:V, or a path: text, jsonl (plain, .gz, .zst), parquet, .bin, prepared shards, or a folder."""
    seqio: str | None = None
    """MODULE:TASK instead of --source: a registered seqio Task or Mixture, in its own vocabulary."""
    tfds: str | None = None
    """NAME/CONFIG:VERSION instead of --source: a tfds builder."""
    tokenizer: str | None = None
    """byte, bpe:V, own, or the path of a SentencePiece model, a tokenizer.json, or a folder with vocab.json and merges.txt.
    bpe:512 when not given; own with --seqio and for prepared shards."""
    field: str = "text"
    """Field that holds the text of a record."""
    domain: str = ""
    """Field that holds the domain of a record; the first folder below the source when not given."""
    out: Path | None = None
    """New folder for the shards, then a source: Data(source=OUT, tokenizer="own"). The user's cache when not given."""
    items: Path | None = None
    """contamination: .jsonl of test items, their text in --field."""

    def run(self) -> int:
        from scalejax.config import Data as Corpus
        from scalejax.data import contamination, preparation

        named = [
            f"{kind}:{name}" for kind, name in (("seqio", self.seqio), ("tfds", self.tfds)) if name
        ]
        if len(named) > 1:
            raise ValueError("--seqio and --tfds name two sources; give one")
        source = named[0] if named else self.source
        own = self.seqio or (Path(source).expanduser() / "manifest.json").is_file()
        tokenizer = self.tokenizer or ("own" if own else "bpe:512")
        corpus = Corpus(source=source, tokenizer=tokenizer, field=self.field, domain=self.domain)
        if self.action == "contamination":
            if self.items is None:
                raise ValueError("contamination needs --items FILE.jsonl, one test item a line")
            print(contamination.report(preparation.prepare(corpus), self.items, field=self.field))
            return 0
        print((preparation.export(corpus, self.out) if self.out else preparation.prepare(corpus)).folder)
        return 0


@dataclass(frozen=True, kw_only=True)
class New:
    """Start a project of one's own: configs/ and one experiment that runs."""

    folder: Positional[Path]
    """A new folder."""

    def run(self) -> int:
        from scalejax.project import new_project

        print("\n".join(str(path) for path in new_project(self.folder)))
        return 0


VERBS = {
    "plan": Plan,
    "run": Run,
    "status": Status,
    "fit": Fit,
    "predict": Predict,
    "eval": Eval,
    "report": Report,
    "export": Export,
    "data": Data,
    "new": New,
}


def main() -> None:
    """Runs one verb and exits: its own code, 2 for bad input, 1 when the machine fails (a full disk, say).

    An error is one message on standard error, without a traceback unless --debug.
    """
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    command = _parse(arguments)
    try:
        code = command.run()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader left, as in `scalejax status .. | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (ValueError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        print(f"scalejax: {error}", file=sys.stderr)
        users = (
            ValueError,
            FileNotFoundError,
            NotADirectoryError,
            IsADirectoryError,
            PermissionError,
        )
        code = 2 if isinstance(error, users) else 1
    sys.exit(code)


def _parse(arguments: list[str]) -> Any:
    return tyro.extras.subcommand_cli_from_dict(
        VERBS, prog="scalejax", description=_ABOUT, args=arguments, sort_subcommands=False
    )


_ABOUT = (
    "From a grid of language-model runs to a scaling law with honest intervals. "
    "Exit codes: 0 done, 1 a run failed, 2 bad input, 3 every run diverged, 75 stopped (run again)."
)


def _pairs(text: str, flag: str) -> dict[str, str]:
    """NAME=VALUE,NAME=VALUE -> dict."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    if wrong := [item for item in items if "=" not in item]:
        raise ValueError(f"{flag} takes NAME=VALUE,NAME=VALUE; got {wrong[0]!r}")
    pairs = [
        (name.strip(), value.strip()) for name, _, value in (item.partition("=") for item in items)
    ]
    if len(pairs) > len(named := dict(pairs)):
        twice = next(name for name in named if [other for other, _ in pairs].count(name) > 1)
        raise ValueError(f"{flag} names {twice} twice: {text}")
    return named


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"--fix {name} takes a number; got {text!r}") from error


def _cache_programs() -> None:
    """Keeps compiled programs in the user's cache folder: a fit's program takes seconds to compile and 50 ms to load.

    By the environment, before jax is imported, so that workers keep them there too.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scalejax" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.01")


if __name__ == "__main__":
    main()
