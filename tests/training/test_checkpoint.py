"""A checkpoint is what was saved, or it is not used."""

import json

import jax
import jax.numpy as jnp
import pytest

from scalejax.training import checkpoint

STATE = {"w": jax.random.normal(jax.random.key(0), (64, 64)), "n": jnp.int32(3)}
LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), STATE)


def saved(folder, *steps):
    for step in steps:
        checkpoint.save(folder, step, {**STATE, "n": jnp.int32(step)}, {"at": step})


def flip_a_byte(folder):
    """In the middle of the largest file: where the values are."""
    path = max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def test_the_newest_checkpoint_comes_back_whole(tmp_path):
    saved(tmp_path, 1, 2, 3)
    step, state, notes = checkpoint.restore(tmp_path, LIKE)
    assert (step, int(state["n"]), notes) == (3, 3, {"at": 3})
    assert checkpoint.steps(tmp_path) == [2, 3], "two are kept"


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # orbax drops a coroutine when it fails
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog):
    saved(tmp_path, 1, 2)
    flip_a_byte(tmp_path / "2")
    step, _, _ = checkpoint.restore(tmp_path, LIKE)
    assert step == 1 and "passed over" in caplog.text


def test_a_value_that_changed_is_caught_by_its_hash(tmp_path):
    saved(tmp_path, 1)
    record = json.loads((tmp_path / "1.json").read_text())
    record["arrays"]["['w']"][2] = "0" * 16
    (tmp_path / "1.json").write_text(json.dumps(record))
    with pytest.raises(checkpoint.CheckpointError, match="no sound checkpoint is left"):
        checkpoint.restore(tmp_path, LIKE)


def test_no_checkpoint_is_none_and_half_ones_do_not_count(tmp_path):
    assert checkpoint.restore(tmp_path, LIKE) is None
    (tmp_path / "7").mkdir()
    (tmp_path / "8.orbax-checkpoint-tmp").mkdir()
    assert checkpoint.restore(tmp_path, LIKE) is None
    checkpoint.clean(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    saved(tmp_path, 1)
    other = {**LIKE, "w": jax.ShapeDtypeStruct((3, 3), jnp.float32, sharding=LIKE["w"].sharding)}
    with pytest.raises(
        checkpoint.CheckpointError, match=r"\['w'\] is \['float32', \[64, 64\]\], this run's is"
    ):
        checkpoint.restore(tmp_path, other)


def test_what_is_not_finite_is_never_saved(tmp_path):
    saved(tmp_path, 1)
    with pytest.raises(checkpoint.NotFinite, match=r"\['w'\] is not finite at step 2"):
        checkpoint.save(tmp_path, 2, {**STATE, "w": STATE["w"] * jnp.nan}, {})
    assert checkpoint.steps(tmp_path) == [1]
