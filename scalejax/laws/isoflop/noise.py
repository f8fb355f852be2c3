"""The noise of a measured loss, as a function of the loss."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Noise(NamedTuple):
    """Standard deviation of a measured loss, in nats per token.

    It is constant, or given at two or more losses: then log-log linear between them and
    constant outside.

    >>> Noise.parse("0.002@3,0.05@7").std(np.array([2.0, 3.0, 7.0])).round(4).tolist()
    [0.002, 0.002, 0.05]
    """

    losses: tuple[float, ...]
    """Ascending; a single one has no meaning."""
    stds: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> "Noise":
        """Read `STD` or `STD@LOSS,STD@LOSS`, in nats per token.

        Raises ValueError for any other text.
        """
        invalid = ValueError(
            f"noise {text!r} is neither STD nor STD@LOSS,STD@LOSS in nats per token; "
            "write for example 0.002 or 0.002@3,0.05@7"
        )
        try:
            parts = [tuple(map(float, part.split("@"))) for part in str(text).split(",")]
        except ValueError:
            raise invalid from None
        match parts:
            case [(std,)] if np.isfinite(std) and std >= 0:
                return cls((1.0,), (std,))
        if any(len(part) != 2 for part in parts):
            raise invalid
        if not all(np.isfinite(number) and number > 0 for part in parts for number in part):
            raise invalid
        parts.sort(key=lambda part: part[1])
        stds, losses = zip(*parts, strict=True)
        if len(set(losses)) < 2:
            raise invalid
        return cls(losses, stds)

    def std(self, loss: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Standard deviation at each loss."""
        if len(self.losses) == 1:
            return np.full_like(loss, self.stds[0])
        return np.exp(np.interp(np.log(loss), np.log(self.losses), np.log(self.stds)))
