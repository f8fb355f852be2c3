"""What segments and runs cost, in training FLOPs.

FLOPs are counted by the `exact` convention of `scalejax.model.flops`: matrix products
only, attention under the causal mask counted as half of the square.
"""

from collections.abc import Callable, Sequence

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


def longest_chain_flops(segments: Sequence[Segment]) -> dict[str, float]:
    """FLOPs of the most expensive chain of segments that starts with each segment.

    The most expensive chain is the one to start first; see `longest_chains`.
    """
    return longest_chains(segments, segment_flops)


def longest_chains(
    segments: Sequence[Segment], cost: Callable[[Segment], float]
) -> dict[str, float]:
    """Cost of the most expensive chain of segments that starts with each segment.

    A chain is a segment, one of its branches, one of that branch's branches, and so on.
    Its segments can only be trained in that order, one at a time.

    segments: every trunk comes before its branches.
    Returns costs by the segment's folder.
    """
    costs: dict[str, float] = {}
    longest_branch: dict[str, float] = {}
    # From the leaves to the roots: when a trunk is reached, its branches are known.
    for segment in reversed(segments):
        costs[segment.folder] = cost(segment) + longest_branch.get(segment.folder, 0)
        longest_branch[segment.parent] = max(
            longest_branch.get(segment.parent, 0), costs[segment.folder]
        )
    return costs
