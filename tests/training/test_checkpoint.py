"""A damaged checkpoint is never used (mirrors scalejax/training/checkpoint.py)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from scalejax.training import checkpoint

STATE = {"w": jax.random.normal(jax.random.key(0), (64, 64)), "n": jnp.int32(3)}
LIKE = checkpoint.abstract(STATE)


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(folder, step, {**STATE, "n": jnp.int32(step)}, {"at": step})


def flip_a_byte(folder: Path) -> None:
    """Damage the middle of the largest file, which is where the values are."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def test_the_newest_checkpoint_is_restored_and_two_are_kept(tmp_path):
    save(tmp_path, 1, 2, 3)
    restored = checkpoint.restore(tmp_path, LIKE)
    assert restored is not None
    step, state, notes = restored
    assert (step, int(state["n"]), notes) == (3, 3, {"at": 3})
    assert checkpoint.steps(tmp_path) == [2, 3]


# When a read fails, orbax drops a coroutine that was never awaited, and Python warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog):
    save(tmp_path, 1, 2)
    flip_a_byte(tmp_path / "2")
    restored = checkpoint.restore(tmp_path, LIKE)
    assert restored is not None and restored.step == 1
    assert "passed over" in caplog.text


def test_a_changed_value_is_caught_by_its_hash(tmp_path):
    save(tmp_path, 1)
    record = json.loads((tmp_path / "1.json").read_text())
    record["arrays"]["['w']"][2] = "0" * 16
    (tmp_path / "1.json").write_text(json.dumps(record))
    with pytest.raises(checkpoint.CheckpointError, match="no sound checkpoint is left"):
        checkpoint.restore(tmp_path, LIKE)


def test_unfinished_checkpoints_do_not_count_and_are_cleaned_up(tmp_path):
    assert checkpoint.restore(tmp_path, LIKE) is None
    (tmp_path / "7").mkdir()
    (tmp_path / "8.orbax-checkpoint-tmp").mkdir()
    assert checkpoint.restore(tmp_path, LIKE) is None
    checkpoint.clean(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    save(tmp_path, 1)
    other = {**LIKE, "w": jax.ShapeDtypeStruct((3, 3), jnp.float32, sharding=LIKE["w"].sharding)}
    message = r"\['w'\] is \['float32', \[64, 64\]\], this run's is"
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.restore(tmp_path, other)


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(checkpoint.NotFinite, match=r"\['w'\] is not finite at step 2"):
        checkpoint.save(tmp_path, 2, {**STATE, "w": STATE["w"] * jnp.nan}, {})
    assert checkpoint.steps(tmp_path) == [1]
