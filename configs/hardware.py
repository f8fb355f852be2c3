"""Placements."""

from scalejax import Placement

ONE = Placement()
"""One device; on CPU one pinned core per worker."""

EIGHT_GPUS = Placement(data=1, fsdp=8, tensor=1)
"""One node: parameters split over eight GPUs."""
