"""Files of a study with wrong types, cuts, huge numbers and markup: refused by name.

Every reader raises ValueError or OSError, which the command line prints as one message.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scalejax import laws
from scalejax.fitting.fit import fit, load
from scalejax.fitting.result import Estimate
from scalejax.grids import run_id
from scalejax.report.record import read_study
from scalejax.report.write import write_report
from scalejax.study import ledger
from scalejax.study.plan import plan
from scalejax.study.results import curves, results
from scalejax.study.status import StatusReader
from scalejax.study.study import Study
from scalejax.training.loop import train
from tests.faults.mutations import mutate
from tests.report.studies import FORECAST_RUN, results_table, write_study

SEEDS_PER_TEST = 60

# A report takes two seconds to write.
SEEDS_OF_REPORTS = 10

# Seeds that have found a fault among the first 3,000: text that is not UTF-8, and a
# list in place of a number.
FAULTS_FOUND = (553, 1683, 2457)


@pytest.fixture(scope="module")
def study(tiny_run, tiny_measure, tmp_path_factory) -> Path:
    """The folder of a study with every kind of file, one run of it trained for real."""
    rows = results_table()
    rows.loc[0, "run"] = run_id(tiny_run)
    folder = write_study(tmp_path_factory.mktemp("out") / "made@1", rows)
    train(tiny_run, out=folder / "runs" / run_id(tiny_run), measure=tiny_measure)
    shutil.rmtree(folder / "runs" / run_id(tiny_run) / "checkpoints")
    law = fit(rows.loc[rows["run"] != FORECAST_RUN, :], laws.chinchilla(), bootstrap=16)
    law.save(folder / "fits" / "chinchilla.json")
    ledger.register(
        folder,
        run=f"made@1/{FORECAST_RUN}",
        law="chinchilla",
        metric="loss",
        estimate=Estimate(2.5, 2.4, 2.6, 0.95, "pairs"),
        distance=3.0,
        fits=[folder / "fits" / "chinchilla.json"],
        rows=rows,
    )
    ledger.score(folder, rows)
    return folder


def readers(folder: Path, tiny_run) -> dict[str, Callable[[], object]]:
    rows, segments = results_table(), plan(Study("made@1", [tiny_run])).segments
    return {
        "results": lambda: results(folder),
        "curves": lambda: curves(folder),
        "status": lambda: StatusReader("made@1", folder, segments).read(),
        "score": lambda: (ledger.check_ledger(folder), ledger.score(folder, rows)),
        "study": lambda: read_study(folder),
        "fit": lambda: load(folder / "fits" / "chinchilla.json").predict(params=1e5, tokens=1e6),
    }


CHUNKS = [range(first, first + SEEDS_PER_TEST) for first in range(0, 300, SEEDS_PER_TEST)]


@pytest.mark.parametrize("seeds", [*CHUNKS, FAULTS_FOUND])
def test_a_mutated_file_is_read_or_refused_but_never_a_traceback(seeds, study, tiny_run, tmp_path):
    refused = 0
    for seed in seeds:
        folder = shutil.copytree(study, tmp_path / "out" / "made@1")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        path = files[seed % len(files)]
        change = mutate(path, seed)
        for name, read in readers(folder, tiny_run).items():
            try:
                read()
            except (ValueError, OSError) as error:
                refused += 1
                assert path.name in str(error) or str(folder) in str(error), f"seed {seed}: {error}"
            except Exception as error:
                pytest.fail(f"seed {seed}: {name} after {change}: {error!r}")
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        shutil.rmtree(tmp_path / "out")
    assert refused > len(seeds) / 3, "the changes must be ones that readers notice"


@pytest.mark.slow
def test_reports_of_mutated_studies_have_no_live_markup(study, tmp_path):
    written = 0
    for seed in range(SEEDS_OF_REPORTS):
        folder = shutil.copytree(study, tmp_path / "out" / "made@1")
        readable = ("study.json", "forecasts.jsonl", "chinchilla.json", "results.parquet")
        files = [path for path in sorted(folder.rglob("*")) if path.name in readable]
        change = mutate(files[seed % len(files)], seed)
        try:
            write_report(folder)
        except (ValueError, OSError):
            pass
        except Exception as error:
            pytest.fail(f"seed {seed}: the report after {change}: {error!r}")
        else:
            written += 1
            page = (folder / "report.html").read_text(encoding="utf-8")
            assert "<script>alert" not in page, f"seed {seed}: {change}"
        shutil.rmtree(tmp_path / "out")
    assert written > SEEDS_OF_REPORTS / 6


def test_mutations_depend_on_the_seed_only(study, tmp_path):
    changes = []
    for _ in range(2):
        path = tmp_path / "study.json"
        shutil.copy(study / "study.json", path)
        changes.append(
            [
                (mutate(path, seed), path.write_bytes((study / "study.json").read_bytes()))
                for seed in range(20)
            ]
        )
    assert changes[0] == changes[1] and len({change for change, _ in changes[0]}) > 10
    assert np.isfinite(results(study)["loss"]).all()
