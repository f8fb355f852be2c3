"""The topologies that --topology names (mirrors scalejax/study/topology/chips.py)."""

import pytest

from scalejax.study.topology.chips import CHIPS, parse_topology


@pytest.mark.parametrize(
    ("name", "devices", "options"),
    [
        ("v5e:16x16", 256, {"platform": "tpu", "topology_name": "v5e:16x16"}),
        ("v5p:4x4x4", 64, {"platform": "tpu", "topology_name": "v5p:4x4x4"}),
        ("h100:4", 4, {"topology": "1x1x4"}),
        ("h100:16", 16, {"platform": "cuda", "topology": "1x2x8"}),
    ],
)
def test_a_name_gives_the_devices_and_what_their_compiler_is_told(name, devices, options):
    topology = parse_topology(name)
    assert topology.devices == devices
    assert options.items() <= topology.compiler_options.items()


@pytest.mark.parametrize("name", ["v9:4x4", "v5e", "v5e:4", "v5p:4x4", "h100:2x4", "v5e:0x4", ""])
def test_a_name_of_no_topology_is_refused_with_examples(name):
    with pytest.raises(ValueError, match=r"v5e:16x16, v5p:4x4x4, v6e:8x8 or h100:8; got"):
        parse_topology(name)


def test_gpus_of_several_nodes_share_the_slower_network():
    assert parse_topology("h100:8").link_bandwidth == 9 * parse_topology("h100:16").link_bandwidth


def test_every_chip_has_a_published_peak():
    assert all(chip.peak_flops > 1e14 for chip in CHIPS.values())
