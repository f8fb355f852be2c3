"""What segments and runs cost, in training FLOPs.

FLOPs are counted by the `exact` convention of `scalejax.model.flops`: matrix products
only, attention under the causal mask counted as half of the square.
"""

from collections.abc import Sequence

from scalejax.config import Run
from scalejax.model.flops import training_flops
from scalejax.training.segment import Segment


def segment_flops(segment: Segment) -> int:
    """Training FLOPs of the steps of a segment."""
    tokens = segment.tokens(segment.start, segment.stop)
    return training_flops(segment.run.model, segment.run.data.sequence_length, tokens)


def run_flops(run: Run) -> int:
    """Training FLOPs of a run that is trained from its first step."""
    return training_flops(run.model, run.data.sequence_length, run.tokens_read)


def longest_chain_flops(segments: Sequence[Segment]) -> dict[str, int]:
    """FLOPs of the most expensive chain of segments that starts with each segment.

    A chain is a segment, one of its branches, one of that branch's branches, and so on.
    Its segments can only be trained in that order, one at a time, so the most expensive
    chain is the one to start first.

    segments: every trunk comes before its branches.
    Returns FLOPs by the segment's folder.
    """
    flops: dict[str, int] = {}
    longest_branch: dict[str, int] = {}
    # From the leaves to the roots: when a trunk is reached, its branches are known.
    for segment in reversed(segments):
        flops[segment.folder] = segment_flops(segment) + longest_branch.get(segment.folder, 0)
        longest_branch[segment.parent] = max(
            longest_branch.get(segment.parent, 0), flops[segment.folder]
        )
    return flops
