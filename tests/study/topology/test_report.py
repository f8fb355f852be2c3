"""Plans for accelerators that are not at hand (mirrors
scalejax/study/topology/report.py).
"""

import dataclasses
import json

import pytest

from scalejax.config import Model, Placement
from scalejax.study.study import Study
from scalejax.study.topology import report
from scalejax.study.topology.chips import parse_topology
from scalejax.study.topology.report import (
    _bytes_used,
    _remedies,
    aot_python,
    placement_on,
    topology_report,
)


@pytest.fixture
def wide_run(tiny_run):
    """A run of 256 sequences per batch on a model that 16 devices can split."""
    model = Model.sized(width=128, depth=1, head_size=8, vocabulary=32)
    return tiny_run.replace(model=model, batch_tokens=256 * 16, tokens=256 * 160)


@pytest.fixture
def compilers():
    """Skip the test where the compilers of accelerators are not installed."""
    try:
        aot_python()
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("topology", "sequences", "mesh"),
    [
        ("v5e:4x4", 256, (1, 16, 1)),
        ("v5e:16x16", 256, (4, 64, 1)),
        # Only eight sequences: two devices share the work of each.
        ("v5e:4x4", 8, (1, 8, 2)),
    ],
)
def test_without_a_placement_the_batch_is_split_as_far_as_it_goes(
    topology, sequences, mesh, wide_run
):
    run = wide_run.replace(batch_tokens=sequences * 16)
    placement = placement_on(parse_topology(topology), run, Placement())
    assert (placement.data, placement.fsdp, placement.tensor) == mesh


def test_a_placement_of_another_number_of_devices_is_refused(wide_run):
    with pytest.raises(ValueError, match=r"uses data 2 .* = 8 devices, but v5e:4x4 has 16"):
        placement_on(parse_topology("v5e:4x4"), wide_run, Placement(data=2, fsdp=4))


def test_devices_that_divide_neither_batch_nor_heads_are_refused_by_the_topology(wide_run):
    with pytest.raises(
        ValueError, match=r"9 devices of v5e:3x3 .* its batch of 8 sequences.* heads"
    ):
        placement_on(parse_topology("v5e:3x3"), wide_run.replace(batch_tokens=128), Placement())


def test_missing_compilers_are_exit_2_and_say_what_to_run(call, monkeypatch, tmp_path):
    monkeypatch.setattr(report, "PACKAGE_ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="make aot"):
        aot_python()


def test_an_unknown_topology_is_exit_2_before_the_file_is_read(call):
    code, out, err = call("plan", "none.py", "--topology", "v9:2x2")
    assert code == 2 and "v5e:16x16" in err and "v9:2x2" in err and not out


def test_the_refusal_of_a_program_that_is_too_large_gives_its_size():
    refusal = "RESOURCE_EXHAUSTED: Ran out of memory. Used 48.5G of 15.75G hbm. Exceeded hbm"
    assert _bytes_used(refusal) == int(48.5 * 2**30)
    assert _bytes_used("INTERNAL: the compiler has a bug") is None


def test_what_the_compiler_says_is_told_in_one_line(wide_run, monkeypatch):
    words = "INTERNAL: no tiles for %dot.223\n\tSymbolic tile with\n  step.py:233:12"
    monkeypatch.setattr(report, "compile_for", lambda *_: report.CompiledStep(error=words))
    found = topology_report(Study("s@1", [wide_run]), parse_topology("h100:8"))
    assert found["error"] == "INTERNAL: no tiles for %dot.223" and found["fits"] is None


def test_remedies_recompute_first_and_end_with_one_sequence_per_device(wide_run):
    placement = Placement(fsdp=16)
    remedies = list(_remedies(wide_run, placement))
    assert [(one.remat, one.accumulate) for one in remedies] == [
        ("block", 1),
        ("block", 4),
        ("block", 16),
    ]
    assert placement not in remedies


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5e:2x2", "h100:8"])
@pytest.mark.usefixtures("compilers")
def test_the_real_step_is_compiled_for_devices_that_are_not_there(name, wide_run):
    # The attention kernel of TPUs needs sequences of a multiple of 128.
    data = dataclasses.replace(wide_run.data, sequence_length=128)
    model = Model.sized(width=128, depth=1, head_size=16, vocabulary=32)
    run = wide_run.replace(model=model, data=data, batch_tokens=8 * 128, tokens=80 * 128)
    found = topology_report(Study("s@1", [run]), parse_topology(name))
    assert found["fits"], found["error"]
    assert found["fused_attention"] == (name == "v5e:2x2")
    assert found["bytes_per_device"] and found["bytes_per_device"] < found["capacity_bytes"]
    # The parameters are gathered and the gradients are reduced.
    assert found["collectives"]["all-gather"]["bytes"] > 0
    assert found["mfu"] and 0 < found["mfu"] <= 1
    json.dumps(found)


@pytest.mark.slow
@pytest.mark.usefixtures("compilers")
def test_a_step_is_compiled_for_gpus_whose_kernels_cannot_be_tuned_here(wide_run):
    # Triton's matmul has no tiles of 262,144 x 640 that XLA knows without a GPU.
    data = dataclasses.replace(wide_run.data, sequence_length=512)
    model = Model.sized(width=640, depth=2, head_size=160, vocabulary=32)
    run = wide_run.replace(
        model=model,
        data=data,
        batch_tokens=8 * 262_144,
        tokens=80 * 262_144,
        compute_dtype="bfloat16",
    )
    placement = Placement(remat="block", scan_layers=True)
    found = topology_report(Study("s@1", [run], placement=placement), parse_topology("h100:8"))
    assert found["error"] is None and found["bytes_per_device"]
