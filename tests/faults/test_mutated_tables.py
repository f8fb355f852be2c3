"""Tables with wrong types, cuts, huge numbers and markup: fitted or refused by name."""

import pytest

from scalejax import laws
from scalejax.fitting.fit import fit
from tests.faults.mutations import mutate
from tests.report.studies import results_table

SEEDS_PER_TEST = 60


def write_table(path):
    """Write the results of a study in the format that a suffix names."""
    rows = results_table().drop(columns="top1_chance")
    match path.suffix:
        case ".csv":
            rows.to_csv(path, index=False)
        case ".parquet":
            rows.to_parquet(path, index=False)
        case _:
            rows.to_json(path, orient="records", lines=path.suffix == ".jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
def test_a_mutated_table_is_fitted_or_refused_but_never_a_traceback(suffix, tmp_path):
    path, refused = tmp_path / "out" / f"table{suffix}", 0
    for seed in range(SEEDS_PER_TEST):
        path.parent.mkdir(exist_ok=True)
        write_table(path)
        change = mutate(path, seed)
        try:
            # What a user sees of a fit.
            repr(fit(path, laws.chinchilla(), bootstrap=0))
        except (ValueError, OSError):
            refused += 1
        except Exception as error:
            pytest.fail(f"seed {seed}: {change}: {error!r}")
        assert [entry.name for entry in tmp_path.rglob("*")] == ["out", path.name]
    assert refused > SEEDS_PER_TEST / 10, "the changes must be ones that readers notice"
