"""Placements: how a run is split over devices."""

from scalejax import Placement

# One device. On CPU this is one core per worker.
ONE = Placement()

# One node of eight GPUs, with batch and parameters split over all of them.
EIGHT_GPUS = Placement(data=1, fsdp=8, tensor=1)

# Deep models at full length: the blocks are compiled once, as a loop, and the backward
# pass computes their activations again. Set the mesh for the devices at hand.
DEEP = Placement(remat="block", scan_layers=True)
