"""What `data` prints."""

import numpy as np

from scalejax.data.contamination import NGRAM_TOKENS


def contamination_text(overlap: np.ndarray, source: str) -> str:
    """The test items that occur in the training tokens, one per line, and a count.

    overlap: what `scalejax.data.contamination.file_overlap` returned.
    source: what the training tokens were made from.

    >>> print(contamination_text(np.array([0.0, 0.5]), "books"))
    line 2: 50% of its 13-token sequences
    1 of 2 items share 13 consecutive tokens with the training tokens of books
    """
    lines = [
        f"line {number}: {share:.0%} of its {NGRAM_TOKENS}-token sequences"
        for number, share in enumerate(overlap.tolist(), start=1)
        if share > 0
    ]
    summary = (
        f"{len(lines)} of {len(overlap)} items share {NGRAM_TOKENS} consecutive tokens with the "
        f"training tokens of {source}"
    )
    # Items without a single 13-gram have no overlap to compute.
    short = int(np.isnan(overlap).sum())
    if short:
        summary += f"; {short} have fewer than {NGRAM_TOKENS} tokens and were not checked"
    return "\n".join([*lines, summary])
