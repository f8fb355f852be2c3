"""What training a run needs of a device's memory, estimated from its configuration."""

from scalejax.config import Placement, Run
from scalejax.model.transformer import counts

# Moments that each optimizer keeps, in copies of the parameters, at most.
MOMENTS = {"adamw": 2, "lion": 1, "muon": 2, "schedule-free-adamw": 2}

BYTES = {"float32": 4, "bfloat16": 2}


def state_bytes(run: Run, averages: int) -> int:
    """Return the bytes of the state that a checkpoint holds, all of it float32.

    averages: how many averages of the weights are kept beside them.
    """
    copies = 1 + MOMENTS[run.optimizer.name] + averages
    return 4 * copies * counts(run.model).params


def device_bytes(run: Run, placement: Placement, averages: int) -> int:
    """Return the bytes on a device: state, gradients and activations of a step."""
    model = run.model
    shards = placement.fsdp * placement.tensor
    gradients = 4 * counts(model).params
    tokens = run.batch_tokens / (placement.data * placement.fsdp * placement.accumulate)
    # What the backward pass of a block reads, per token: inputs and outputs of the
    # norms, queries, keys and values, the attention's output, three arrays of the MLP.
    whole = 4 * model.width
    split = (3 * model.heads + 2 * model.kv_heads) * model.head_size + 3 * model.mlp_width
    per_block = whole + split / placement.tensor
    kept = {"none": per_block, "dots": per_block * 0.6, "block": model.width}[placement.remat]
    per_token = model.depth * kept + per_block
    activations = tokens * per_token * BYTES[run.compute_dtype]
    return int((state_bytes(run, averages) + gradients) / shards + activations)
