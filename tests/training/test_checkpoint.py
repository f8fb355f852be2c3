"""A damaged checkpoint is never used (mirrors scalejax/training/checkpoint.py)."""

import json
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from scalejax.config import Placement
from scalejax.training import checkpoint
from scalejax.training.sharding import make_mesh
from tests.training.damage import flip_a_bit

RUN = checkpoint.Origin(segment="a" * 16, data_hash="d" * 16)
STATE = {"w": jax.random.normal(jax.random.key(0), (64, 64)), "n": jnp.int32(3)}
LIKE = checkpoint.abstract(STATE)


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(folder, step, {**STATE, "n": jnp.int32(step)}, RUN, {"at": step})


def test_the_newest_checkpoint_is_restored_and_two_are_kept(tmp_path):
    save(tmp_path, 1, 2, 3)
    restored = checkpoint.restore(tmp_path, LIKE, RUN.segment)
    assert restored is not None
    step, state, notes = restored
    assert (step, int(state["n"]), notes) == (3, 3, {"at": 3})
    assert checkpoint.steps(tmp_path) == [2, 3]


# When a read fails, orbax drops a coroutine that was never awaited, and Python warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog):
    save(tmp_path, 1, 2)
    flip_a_bit(tmp_path / "2")
    restored = checkpoint.restore(tmp_path, LIKE, RUN.segment)
    assert restored is not None and restored.step == 1
    assert "passed over" in caplog.text


def test_values_of_another_step_are_caught_by_their_checksum(tmp_path):
    save(tmp_path, 1)
    other = tmp_path / "other"
    checkpoint.save(
        other, 1, {**STATE, "w": STATE["w"].at[3, 5].add(1e-6), "n": jnp.int32(1)}, RUN, {}
    )
    shutil.rmtree(tmp_path / "1")
    (other / "1").rename(tmp_path / "1")
    with pytest.raises(checkpoint.CheckpointError, match=r"\['w'\] is not what was saved"):
        checkpoint.restore(tmp_path, LIKE, RUN.segment)


def test_an_edited_record_is_caught_by_its_seal(tmp_path):
    save(tmp_path, 1)
    record = json.loads((tmp_path / "1.json").read_text())
    record["notes"]["at"] = 2
    (tmp_path / "1.json").write_text(json.dumps(record))
    with pytest.raises(checkpoint.CheckpointError, match=r"record 1\.json is not as it was"):
        checkpoint.restore(tmp_path, LIKE, RUN.segment)


def test_a_checkpoint_of_another_run_or_of_other_data_is_refused_by_name(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(checkpoint.CheckpointError, match=r"belongs to run a{16}, not to b"):
        checkpoint.restore(tmp_path, LIKE, "b")
    with pytest.raises(checkpoint.CheckpointError, match=r"data with the hash d{16}.* have e"):
        checkpoint.restore(tmp_path, LIKE, RUN.segment, data_hash="e")
    assert checkpoint.restore(tmp_path, LIKE, RUN.segment, data_hash=RUN.data_hash)


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices, virtual ones will do")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_a_checkpoint_is_restored_bit_for_bit_on_any_mesh(dtype, tmp_path):
    values = (100 * jax.random.normal(jax.random.key(1), (16, 24, 3))).astype(dtype)
    spec = PartitionSpec("fsdp", "tensor")

    def placed(**axes):
        mesh = make_mesh(Placement(**axes))
        return {"w": jax.device_put(values, NamedSharding(mesh, spec)), "n": jnp.int32(7)}

    checkpoint.save(tmp_path, 1, placed(fsdp=8), RUN, {})
    for axes in ({}, {"data": 2, "fsdp": 2, "tensor": 2}, {"tensor": 4}):
        like = checkpoint.abstract(placed(**axes))
        restored = checkpoint.restore(tmp_path, like, RUN.segment)
        assert restored is not None and restored.state["w"].sharding == like["w"].sharding
        np.testing.assert_array_equal(np.asarray(restored.state["w"]), np.asarray(values))


def test_only_folders_of_checkpoints_are_cleaned_up(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "7").mkdir()
    checkpoint.clean(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_unfinished_checkpoints_do_not_count_and_are_cleaned_up(tmp_path):
    assert checkpoint.restore(tmp_path, LIKE, RUN.segment) is None
    (tmp_path / "7").mkdir()
    (tmp_path / "8.orbax-checkpoint-tmp").mkdir()
    assert checkpoint.restore(tmp_path, LIKE, RUN.segment) is None
    checkpoint.clean(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["²", "٤", "01", "8.orbax-checkpoint-tmp", "-1"])
def test_names_that_are_no_step_do_not_count(name, tmp_path):
    save(tmp_path, 1)
    (tmp_path / name).mkdir()
    (tmp_path / f"{name}.json").write_text("{}")
    assert checkpoint.steps(tmp_path) == [1]


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    save(tmp_path, 1)
    other = {**LIKE, "w": jax.ShapeDtypeStruct((3, 3), jnp.float32, sharding=LIKE["w"].sharding)}
    message = r"\['w'\] is \['float32', \[64, 64\]\], this run's is"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.restore(tmp_path, other, RUN.segment)


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(checkpoint.NotFinite, match=r"\['w'\] is not finite at step 2"):
        checkpoint.save(tmp_path, 2, {**STATE, "w": STATE["w"] * jnp.nan}, RUN, {})
    assert checkpoint.steps(tmp_path) == [1]


def test_a_save_in_the_background_keeps_the_state_that_it_was_given(tmp_path, monkeypatch):
    """The step after `start` overwrites the arrays while nothing is written yet."""
    may_write, save_now = threading.Event(), checkpoint.save

    def save_later(*arguments):
        may_write.wait()
        save_now(*arguments)

    monkeypatch.setattr(checkpoint, "save", save_later)
    double = jax.jit(lambda state: jax.tree.map(lambda x: 2 * x, state), donate_argnums=0)
    with checkpoint.Saver() as saver:
        state = jax.tree.map(jnp.copy, STATE)
        saver.start(tmp_path, 1, state, RUN, {})
        changed = double(state)
        assert saver.is_busy and saver.completed() is None and not checkpoint.steps(tmp_path)
        may_write.set()
        assert saver.completed(wait_for_it=True) == 1
        assert not saver.is_busy and saver.completed() is None
    restored = checkpoint.restore(tmp_path, LIKE, RUN.segment)
    assert restored is not None
    np.testing.assert_array_equal(restored.state["w"], STATE["w"])
    assert np.asarray(changed["w"] != STATE["w"]).all() and state["w"].is_deleted()


def test_leaving_the_block_waits_for_the_save_in_flight(tmp_path):
    with checkpoint.Saver() as saver:
        saver.start(tmp_path, 1, STATE, RUN, {})
    assert checkpoint.steps(tmp_path) == [1]


def test_the_error_of_a_save_in_the_background_is_raised_once(tmp_path):
    (tmp_path / "file").write_text("")
    with checkpoint.Saver() as saver:
        saver.start(tmp_path / "file", 1, STATE, RUN, {})
        with pytest.raises(OSError, match="file"):
            saver.completed(wait_for_it=True)
        assert saver.completed(wait_for_it=True) is None
        saver.start(tmp_path, 2, {**STATE, "w": STATE["w"] * jnp.nan}, RUN, {})
        with pytest.raises(checkpoint.NotFinite):
            saver.completed(wait_for_it=True)
