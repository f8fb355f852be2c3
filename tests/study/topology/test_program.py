"""The collectives of compiled programs (mirrors scalejax/study/topology/program.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from scalejax.study.topology.program import collectives

# Lines of a program for H100 GPUs and of one for TPUs, shortened.
ASYNCHRONOUS = """HloModule jit_step

ENTRY %main (p: bf16[8,512]) -> f32[8,512] {
  %p = bf16[8,512]{1,0} parameter(0)
  %all-gather-start = ((bf16[8,512]{1,0}, bf16[8,128]{1,0}), (bf16[128,512]{1,0}, \
bf16[128,128]{1,0})) all-gather-start(%p, %q), channel_id=1, \
replica_groups=mesh['axis_0'=1,'axis_1'=16] {'axis_1'}, dimensions={0}
  %all-gather-done = (bf16[128,512]{1,0}, bf16[128,128]{1,0}) all-gather-done(%all-gather-start)
  %reduce-scatter-start = ((f32[128,512]{1,0}), f32[8,512]{1,0}) reduce-scatter-start(%x), \
channel_id=57, replica_groups=[1,16]<=[16], dimensions={0}, to_apply=%add
  ROOT %reduce-scatter-done = f32[8,512]{1,0} reduce-scatter-done(%reduce-scatter-start)
}
"""
LOOP = """HloModule jit_step

%condition (p: (s32[], f32[64])) -> pred[] {
  %n = s32[]{:T(128)} constant(12)
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}

%all-reduce-scatter.1 (input: f32[256,1024]) -> f32[64,1024] {
  %all-reduce.9 = f32[256,1024]{1,0:T(8,128)} all-reduce(%input), channel_id=7, \
replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %slice = f32[64,1024]{1,0:T(8,128)S(1)} dynamic-slice(%all-reduce.9, %at, %zero)
}

%fusion.2 (p: bf16[64]) -> bf16[256] {
  ROOT %all-gather.2 = bf16[256]{0} all-gather(%p), channel_id=3, replica_groups={{0,1,2,3}}
}

%fusion.3 (p: bf16[64]) -> bf16[256] {
  ROOT %all-gather.3 = bf16[256]{0} all-gather(%p), channel_id=3, replica_groups={{0,1,2,3}}
}

%body (p: (s32[], f32[64])) -> (s32[], f32[64]) {
  %start = bf16[256]{0} fusion(%a), kind=kCustom, calls=%fusion.2
  %done = bf16[256]{0} fusion(%start), kind=kCustom, calls=%fusion.3
  ROOT %rs = f32[64,1024]{1,0} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.1
}

ENTRY %main (p: f32[64]) -> f32[64] {
  %while = (s32[], f32[64]{0}) while(%t), condition=%condition, body=%body
  ROOT %all-reduce.1 = f32[]{:T(128)} all-reduce(%loss), channel_id=1, \
replica_groups={{0,1,2,3}}, to_apply=%add
}
"""

# A matmul that XLA overlaps with the gather of its weights; the loop is unrolled twice.
RING = """HloModule jit_step

%windowed_dot_general_cond_ag (p: (bf16[4,48], u32[])) -> pred[] {
  %i = u32[]{:T(128)} get-tuple-element(%p), index=1
  %n = u32[]{:T(128)} constant(8)
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}

%wide.windowed_dot_general_body_ag.1 (p: (bf16[4,48], u32[])) -> (bf16[4,48], u32[]) {
  %two = u32[]{:T(128)} constant(2)
  %i.1 = u32[]{:T(128)} get-tuple-element(%p), index=1
  %start = (bf16[4,48]{1,0}, bf16[4,48]{1,0}) collective-permute-start(%w), channel_id=3, \
source_target_pairs={{0,1},{1,0}}
  %done = bf16[4,48]{1,0} collective-permute-done(%start)
  %next = u32[]{:T(128)} add(%i.1, %two), metadata={op_name="dot"}
  ROOT %tuple = (bf16[4,48]{1,0}, u32[]{:T(128)}) tuple(%done, /*index=1*/%next)
}

ENTRY %main (p: bf16[4,48]) -> bf16[4,48] {
  ROOT %while = (bf16[4,48]{1,0}, u32[]) while(%t), condition=%windowed_dot_general_cond_ag, \
body=%wide.windowed_dot_general_body_ag.1
}
"""


def test_a_ring_of_permutes_is_one_gather_and_its_counter_advances_by_two():
    assert collectives(RING) == {"all-gather": {"count": 1, "bytes": 4 * 2 * 4 * 48}}
    assert collectives(RING.replace("constant(2)", "constant(1)")) == {
        "all-gather": {"count": 1, "bytes": 8 * 2 * 4 * 48}
    }


def test_an_asynchronous_collective_counts_its_larger_side_once():
    assert collectives(ASYNCHRONOUS) == {
        "all-gather": {"count": 1, "bytes": 2 * 128 * (512 + 128)},
        "reduce-scatter": {"count": 1, "bytes": 4 * 128 * 512},
    }


def test_a_loop_counts_once_per_iteration_and_a_split_collective_once():
    """On TPUs a reduce-scatter is a fusion, and an overlapped gather is two of them."""
    assert collectives(LOOP) == {
        "all-gather": {"count": 12, "bytes": 12 * 2 * 256},
        "reduce-scatter": {"count": 12, "bytes": 12 * 4 * 256 * 1024},
        "all-reduce": {"count": 1, "bytes": 4},
    }


def test_a_program_of_this_machine_has_the_collectives_that_it_was_given():
    """Eight devices: gather a split matrix in each of five iterations, then reduce."""
    mesh = Mesh(np.asarray(jax.devices()[:8]), ("d",))
    split = NamedSharding(mesh, PartitionSpec("d"))
    whole = NamedSharding(mesh, PartitionSpec())

    def loss(x, w):
        def body(x, _):
            # What is gathered depends on x, so that the gather cannot leave the loop.
            gathered = jax.lax.with_sharding_constraint(jnp.tanh(w + x), whole)
            return jnp.tanh(x @ gathered), None

        return jnp.sum(jax.lax.scan(body, x, length=5)[0])

    arrays = [jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=split)] * 2
    program = jax.jit(loss).lower(*arrays).compile().as_text()
    assert program is not None
    found = collectives(program)
    assert found["all-gather"] == {"count": 5, "bytes": 5 * 4 * 64 * 64}
    assert found["all-reduce"]["count"] in (1, 6)


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        collectives("HloModule empty\n")
