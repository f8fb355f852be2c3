"""Runs that begin from other weights (mirrors scalejax/training/start.py)."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from scalejax.config import Data, Measure, Model, Placement
from scalejax.data.preparation import prepare
from scalejax.data.tokenizer_json import tokenizer_files
from scalejax.grids import as_dict, run_id
from scalejax.model.hf_export import export_hf
from scalejax.optim.schedules import constant
from scalejax.training.loop import Preempted, train, train_segment
from scalejax.training.segment import Segment, TrainingJob
from scalejax.training.sharding import make_mesh
from scalejax.training.start import check_source, check_tokens_of, load_weights
from scalejax.training.status import environment, open_folder
from scalejax.training.step import init_state
from tests.training.runs import curve, stop_after
from tests.training.test_loop import final_state

MEASURE = Measure(tokens=1024, items=0)


@pytest.fixture(scope="module")
def source(tiny_run, tmp_path_factory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("source")
    train(tiny_run, out=folder, measure=MEASURE)
    return folder


def job_of(run, folder: Path) -> TrainingJob:
    segment = Segment(run=run, start=0, stop=run.steps)
    job = TrainingJob(segment=segment, study="", measure=MEASURE, placement=Placement())
    job.write(folder)
    return job


def initial_weights(run, folder: Path) -> list[np.ndarray]:
    found = check_source(job_of(run, folder), folder, None)
    assert found is not None
    mesh = make_mesh(Placement())
    state = init_state(run, mesh, params=load_weights(found, run, mesh))
    assert int(state.step) == 0
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]


def test_a_run_begins_from_the_final_weights_of_another(source, tiny_run, tmp_path):
    run = tiny_run.replace(start=str(source), seed=3)
    weights = initial_weights(run, tmp_path)
    # The parameters are the first arrays of a state.
    for found, expected in zip(weights, final_state(tiny_run, source), strict=False):
        np.testing.assert_array_equal(found, expected)


def test_continued_training_begins_with_the_loss_at_which_the_source_ended(
    source, tiny_run, tmp_path
):
    """Its rows name the source, and a resume ends with the same bits."""
    changes = {"schedule": constant(warmup=0), "tokens": 40 * 64}
    run = tiny_run.replace(start=str(source), **changes)
    result = train(run, out=tmp_path / "run", measure=MEASURE)
    fresh = train(tiny_run.replace(**changes), out=tmp_path / "fresh", measure=MEASURE)
    first = curve(tmp_path / "run")[0]["train_loss"]
    assert first < curve(tmp_path / "fresh")[0]["train_loss"] - 0.1
    assert result.row["start"] == str(source) and len(result.row["start_weights"]) == 16
    assert "start" not in fresh.row

    folder = tmp_path / "stopped"
    with pytest.raises(Preempted):
        train_segment(job_of(run, folder), folder, None, stopping=stop_after(7))
    assert train(run, out=folder, measure=MEASURE).loss == result.loss


def test_a_source_that_changed_between_stop_and_resume_is_refused(source, tiny_run, tmp_path):
    moving = tmp_path / "source"
    shutil.copytree(source, moving)
    run, folder = tiny_run.replace(start=str(moving)), tmp_path / "run"
    with pytest.raises(Preempted):
        train_segment(job_of(run, folder), folder, None, stopping=stop_after(5))
    shutil.rmtree(moving)
    train(tiny_run.replace(seed=1), out=moving, measure=MEASURE)
    with pytest.raises(ValueError, match=r"began from the weights of .*now it is"):
        train(run, out=folder, measure=MEASURE)


def test_a_hugging_face_checkpoint_is_a_source(tiny_run, tmp_path):
    pytest.importorskip("safetensors")
    model = Model.sized(width=16, depth=1, head_size=8, vocabulary=32)
    params = init_state(tiny_run.replace(seed=5), make_mesh(Placement())).params
    export_hf(model, tiny_run.parametrization, params, tmp_path / "hf", positions=32)
    weights = initial_weights(tiny_run.replace(start=str(tmp_path / "hf")), tmp_path / "run")
    for found, expected in zip(weights, jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_weights_of_another_shape_are_refused_by_name_before_training(source, tiny_run, tmp_path):
    wider = Model.sized(width=32, depth=1, head_size=8, vocabulary=32)
    run = tiny_run.replace(model=wider, start=str(source))
    with pytest.raises(ValueError, match=r"Model\.width is 32 here and 16 there"):
        train(run, out=tmp_path, measure=MEASURE)
    assert not (tmp_path / "checkpoints").exists()


def test_a_start_that_is_not_there_or_not_finished_is_refused(source, tiny_run, tmp_path):
    with pytest.raises(ValueError, match="neither the folder of a trained run"):
        train(tiny_run.replace(start="no/such/folder"), out=tmp_path / "a", measure=MEASURE)
    shutil.copytree(source, tmp_path / "source")
    (tmp_path / "source" / "DONE").unlink()
    run = tiny_run.replace(start=str(tmp_path / "source"))
    with pytest.raises(ValueError, match="is not finished: train it first"):
        train(run, out=tmp_path / "b", measure=MEASURE)


def test_weights_of_another_tokenizer_are_refused_with_the_path_of_theirs(tiny_run, tmp_path):
    """A tokenizer `bpe:V` is trained on the text, so that ids mean other pieces."""
    texts = {"old": "the cat sees the dog", "new": "une maison est une maison"}
    data = {}
    for name, text in texts.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(f'{{"text": "{n} {text} {n + 1}"}}\n' for n in range(200)))
        data[name] = Data(source=str(path), tokenizer="bpe:300", sequence_length=16)
    old = tiny_run.replace(
        model=Model.sized(width=16, depth=1, head_size=8, vocabulary=300), data=data["old"]
    )
    source = tmp_path / "source"
    job_of(old, source)
    trained = prepare(old.data)
    open_folder(source, None, trained.hash, environment(Placement()))
    (source / "checkpoints").mkdir()

    check_tokens_of(source, old, trained)
    tuned = old.replace(start=str(source), data=data["new"])
    with pytest.raises(ValueError, match=r"know other token ids: .* set Data\.tokenizer=") as error:
        check_tokens_of(source, tuned, prepare(tuned.data))
    remedy = str(error.value).rpartition("Data.tokenizer='")[2].rstrip("'")
    theirs = replace(tuned.data, tokenizer=remedy)
    check_tokens_of(source, tuned.replace(data=theirs), prepare(theirs))

    # When the text of the source has changed, nobody knows its tokenizer any more.
    shutil.copy(tmp_path / "new.jsonl", tmp_path / "old.jsonl")
    with pytest.raises(ValueError, match=r"cannot be found out: .*restore the earlier data"):
        check_tokens_of(source, tuned, prepare(tuned.data))


def test_a_checkpoint_whose_tokenizer_numbers_the_tokens_otherwise_is_refused(tiny_run, tmp_path):
    """A checkpoint may know more tokens than the run, but none under another id."""
    path = tmp_path / "text.jsonl"
    path.write_text("".join(f'{{"text": "{n} the cat sees the dog"}}\n' for n in range(200)))
    data = Data(source=str(path), tokenizer="bpe:300", sequence_length=16)
    shards, folder = prepare(data), tmp_path / "hf"
    folder.mkdir()
    tuned = tiny_run.replace(start=str(folder), data=data)
    check_tokens_of(folder, tuned, shards)  # a folder without a tokenizer
    files = tokenizer_files(shards.tokenizer())
    (folder / "tokenizer.model").write_bytes(files["tokenizer.model"])
    check_tokens_of(folder, tuned, shards)

    record = json.loads(files["tokenizer.json"])
    record["added_tokens"].append({"content": "<|user|>", "id": 300})
    (folder / "tokenizer.json").write_text(json.dumps(record))
    check_tokens_of(folder, tuned, shards)
    words = record["model"]["vocab"]
    words["<0x61>"], words["<0x62>"] = words["<0x62>"], words["<0x61>"]
    (folder / "tokenizer.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"know other token ids: '<0x61>' is .*, and .* in"):
        check_tokens_of(folder, tuned, shards)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"hf/tokenizer\.json is not a Hugging Face tokenizer"):
        check_tokens_of(folder, tuned, shards)


def test_the_start_is_part_of_the_identity_and_absent_at_its_default(tiny_run):
    assert "start" not in as_dict(tiny_run)
    assert run_id(tiny_run.replace(start="a")) != run_id(tiny_run.replace(start="b"))
