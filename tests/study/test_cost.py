"""What segments cost (mirrors scalejax/study/cost.py)."""

from scalejax.grids import cooldowns
from scalejax.optim.schedules import constant
from scalejax.study.cost import longest_chain_flops, run_flops, segment_flops
from scalejax.study.plan import plan
from scalejax.study.study import Study


def three_cooldowns(tiny_run):
    base = tiny_run.replace(schedule=constant(warmup=640), tokens=64_000)
    return cooldowns(base, at=[16_000, 32_000, 64_000], fraction=0.2)


def test_the_segments_of_a_run_cost_what_the_run_costs(tiny_run):
    runs = three_cooldowns(tiny_run)
    planned = plan(Study("s@1", runs))
    for run in runs:
        assert sum(map(segment_flops, planned.needed([run]))) == run_flops(run)


def test_the_longest_chain_of_the_first_trunk_is_the_longest_run(tiny_run):
    runs = three_cooldowns(tiny_run)
    planned = plan(Study("s@1", runs))
    chains = longest_chain_flops(planned.segments)
    first, *_, last = planned.needed(runs[-1:])
    assert chains[first.folder] == run_flops(runs[-1])
    assert chains[last.folder] == segment_flops(last)


def test_a_leaf_costs_itself(tiny_run):
    (leaf,) = plan(Study("s@1", [tiny_run])).segments
    assert longest_chain_flops([leaf]) == {leaf.folder: run_flops(tiny_run)}
