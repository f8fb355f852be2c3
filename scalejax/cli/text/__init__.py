"""Everything that the command line prints, by family of verbs.

A command waits for what it imports, so a module here imports only what its own verbs
need.
"""

import json
from collections.abc import Mapping


def as_json(record: Mapping[str, object]) -> str:
    """One JSON object on one line, as every verb prints it under --json.

    Raises ValueError if the record holds NaN or infinity, which JSON does not have.
    """
    return json.dumps(record, allow_nan=False)
