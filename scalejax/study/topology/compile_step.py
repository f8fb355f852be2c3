"""Compile the training step of a run for accelerators that are not at hand.

This is the program of a child process, because the compiler of an accelerator must be
chosen before JAX starts and may end the process:

    python -m scalejax.study.topology.compile_step REQUEST.json RESULT.json PROGRAM.txt

REQUEST.json holds the run, the placement and the options of the topology. The
compiled program goes to PROGRAM.txt as text, its sizes to RESULT.json. A step that
cannot be compiled gives a RESULT.json with the field `error`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh

from scalejax.config import Placement, Run
from scalejax.grids import from_dict
from scalejax.training.sharding import batch_sharding, mesh_over, replicated
from scalejax.training.step import abstract_state, make_train_step


def main(request_path: str, result_path: str, program_path: str) -> None:
    """Compile what the request describes, and write the result."""
    request = json.loads(Path(request_path).read_text())
    run = from_dict(Run, request["run"])
    placement = from_dict(Placement, request["placement"])
    options = request["topology"]
    started = time.monotonic()
    try:
        mesh = abstract_mesh(options, placement)
        compiled = compile_step(run, mesh, placement)
    except Exception as error:  # Whatever the compiler raises is the result.
        result: dict[str, Any] = {"error": f"{type(error).__name__}: {error}"}
    else:
        Path(program_path).write_text(compiled.as_text())
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
        result = {
            "argument_bytes": memory.argument_size_in_bytes,
            "output_bytes": memory.output_size_in_bytes,
            "alias_bytes": memory.alias_size_in_bytes,
            "temporary_bytes": memory.temp_size_in_bytes,
            "code_bytes": memory.generated_code_size_in_bytes,
            "flops": cost.get("flops", 0.0),
            "bytes_accessed": cost.get("bytes accessed", 0.0),
        }
    result["seconds"] = time.monotonic() - started
    Path(result_path).write_text(json.dumps(result))


def abstract_mesh(options: dict[str, str], placement: Placement) -> Mesh:
    """Return the placement's mesh over abstract devices."""
    devices = topologies.get_topology_desc(**options).devices
    sizes = {"data": placement.data, "fsdp": placement.fsdp, "tensor": placement.tensor}
    return mesh_over(devices, sizes)


def compile_step(run: Run, mesh: Mesh, placement: Placement) -> Any:
    """Compile the step of the run's largest batch; no array is ever allocated."""
    rows = jax.ShapeDtypeStruct(
        (run.batch_sequences, run.data.sequence_length + 1),
        jnp.int32,
        sharding=batch_sharding(mesh),
    )
    rate = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(mesh))
    step: Any = make_train_step(run, mesh, placement)
    return step.lower(abstract_state(run, mesh), rows, rate).compile()


if __name__ == "__main__":
    main(*sys.argv[1:])
