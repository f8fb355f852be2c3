"""Accelerators that a study can be planned for, and the groups of them that exist."""

import math
import re
from dataclasses import dataclass

from scalejax.model.flops import PEAK_FLOPS

GIB = 2**30
# GPUs of one node are connected by NVLink.
GPUS_PER_NODE = 8


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator, with the figures that its vendor publishes.

    Bandwidths are in bytes per second.
    """

    platform: str
    """`tpu` or `cuda`."""
    device_kind: str
    """The name in `jax.Device.device_kind`."""
    memory_bytes: int
    """Memory that a program may use."""
    memory_bandwidth: float
    link_bandwidth: float
    """What a device receives from the others of its pod or node, at most."""
    dimensions: int
    """Number of axes of a topology: 1 for GPUs."""
    node_bandwidth: float | None = None
    """What a device receives from other nodes; None where there are only pods."""

    @property
    def peak_flops(self) -> float:
        """Return dense bfloat16 FLOPs per second."""
        return PEAK_FLOPS[self.device_kind]


# Sources: docs.cloud.google.com/tpu/docs/v5e, v5p and v6e, and NVIDIA's data sheet of
# the H100 SXM. TPU capacities are what XLA's compiler lets a program use: a v5e has 16
# GiB. Google states the bandwidth of a chip's links in both directions together (400
# GB/s for v5e); here it is that of one direction.
CHIPS = {
    "v5e": Chip(
        platform="tpu",
        device_kind="TPU v5 lite",
        memory_bytes=int(15.75 * GIB),
        memory_bandwidth=819e9,
        link_bandwidth=200e9,
        dimensions=2,
    ),
    "v5p": Chip(
        platform="tpu",
        device_kind="TPU v5",
        memory_bytes=95 * GIB,
        memory_bandwidth=2765e9,
        link_bandwidth=600e9,
        dimensions=3,
    ),
    "v6e": Chip(
        platform="tpu",
        device_kind="TPU v6 lite",
        memory_bytes=int(31.25 * GIB),
        memory_bandwidth=1638e9,
        link_bandwidth=400e9,
        dimensions=2,
    ),
    "h100": Chip(
        platform="cuda",
        device_kind="NVIDIA H100 80GB HBM3",
        memory_bytes=80 * 10**9,
        memory_bandwidth=3350e9,
        link_bandwidth=450e9,
        dimensions=1,
        # One 400 Gbit/s network card per GPU.
        node_bandwidth=50e9,
    ),
}

# What XLA would ask the driver about an H100 SXM (NVIDIA's data sheet and the CUDA
# programming guide, compute capability 9.0), as the text of a protocol buffer.
H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 10 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000
  device_memory_size: 84942979072
  l2_cache_size: 52428800
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
"""

EXAMPLES = "v5e:16x16, v5p:4x4x4, v6e:8x8 or h100:8"


@dataclass(frozen=True, kw_only=True)
class Topology:
    """A group of connected accelerators, such as a slice of a TPU pod."""

    name: str
    """As the user gives it, such as `v5e:16x16`."""
    chip: Chip
    shape: tuple[int, ...]
    """Number of chips along every axis."""

    @property
    def devices(self) -> int:
        """Return the number of chips."""
        return math.prod(self.shape)

    @property
    def compiler_options(self) -> dict[str, str]:
        """Return the arguments of `jax.experimental.topologies.get_topology_desc`."""
        if self.chip.platform == "tpu":
            return {"platform": "tpu", "topology_name": self.name}
        nodes, rest = divmod(self.devices, GPUS_PER_NODE)
        # Slices x nodes x GPUs per node.
        shape = f"1x{nodes}x{GPUS_PER_NODE}" if nodes and not rest else f"1x1x{self.devices}"
        return {
            "platform": "cuda",
            "topology_name": self.name,
            "topology": shape,
            "target_config": H100,
        }

    @property
    def link_bandwidth(self) -> float:
        """Return the bytes per second that a device receives from all others."""
        slow = self.chip.node_bandwidth
        return slow if slow and self.devices > GPUS_PER_NODE else self.chip.link_bandwidth


def parse_topology(text: str) -> Topology:
    """Return the topology that `--topology` names.

    >>> parse_topology("v5e:4x4").devices
    16

    Raises ValueError for an unknown chip, or a shape that the chip does not come in.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
    chip = CHIPS.get(match[1]) if match else None
    if match is None or chip is None:
        raise ValueError(
            f"--topology must be CHIP:SHAPE with one of the chips {', '.join(CHIPS)}, such as "
            f"{EXAMPLES}; got {text!r}"
        )
    shape = tuple(map(int, match[2].split("x")))
    if len(shape) != chip.dimensions or 0 in shape:
        kind = "a number of GPUs" if chip.dimensions == 1 else f"{chip.dimensions} numbers"
        raise ValueError(
            f"the shape of {match[1]} in --topology must be {kind} above 0, as in {EXAMPLES}; "
            f"got {text!r}"
        )
    return Topology(name=text, chip=chip, shape=shape)
