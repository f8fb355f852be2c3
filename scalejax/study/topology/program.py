"""The collectives of a compiled program, read from its text (XLA's HLO).

A program is a list of computations. Each is a block of lines such as

    %all-gather.3 = bf16[256,1024]{1,0} all-gather(%param.2), channel_id=21, ...

and computations call each other: loops their bodies, fusions what is fused.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple, TypedDict

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

# Bytes of an element, for types whose names do not end with their number of bits.
ELEMENT_BYTES = {"pred": 1, "s4": 1, "u4": 1}

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
# The result's type is everything between `=` and the name of the operation. In a tuple
# it contains spaces; the first word that a parenthesis follows is the operation.
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\(")
ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.-]+)")
BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")


class Collective(TypedDict):
    """All collectives of one kind in a step."""

    count: int
    bytes: int
    """Size of what they gather, reduce or move, on one device: for an all-gather its
    result, for a reduce-scatter what is reduced."""


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    type: str
    operation: str
    line: str


def collectives(program: str) -> dict[str, Collective]:
    """Count the collectives that one execution runs, and their bytes, by kind.

    Whatever is in a loop counts once per iteration.
    """
    computations, entry = _computations(program)
    found: dict[str, Collective] = {}
    for name, times in _executions(computations, entry).items():
        for instruction in computations[name]:
            kind = _kind(instruction.operation, name)
            if kind is None:
                continue
            row = found.setdefault(kind, {"count": 0, "bytes": 0})
            row["count"] += times
            row["bytes"] += times * _moved_bytes(instruction)
    return found


def _computations(program: str) -> tuple[dict[str, list[Instruction]], str]:
    """Return the instructions of every computation by name, and the name of the entry.

    A collective that overlaps with computations is split into several fusions, each of
    which mentions it. Its channel's number tells that they are one; only the first is
    kept.
    """
    computations: dict[str, list[Instruction]] = {}
    entry, name = "", ""
    channels: set[str] = set()
    for line in program.splitlines():
        if header := COMPUTATION.match(line):
            name = header[1]
            computations[name] = []
            entry = name if line.startswith("ENTRY") else entry
        elif (match := INSTRUCTION.match(line)) and name:
            instruction = Instruction(match[1], match[2], match[3], line)
            channel = re.search(r"\bchannel_id=(\d+)", line)
            if channel and _kind(instruction.operation, name):
                if channel[1] in channels:
                    continue
                channels.add(channel[1])
            computations[name].append(instruction)
    if not entry:
        raise ValueError("the compiled program has no ENTRY computation: is it XLA's HLO text?")
    return computations, entry


def _executions(computations: dict[str, list[Instruction]], entry: str) -> dict[str, int]:
    """Return how often each computation runs when the entry runs once."""
    times = dict.fromkeys(computations, 0)

    def run(name: str, count: int) -> None:
        times[name] += count
        for called, iterations in _calls(computations, name):
            run(called, count * iterations)

    run(entry, 1)
    return times


def _calls(computations: dict[str, list[Instruction]], name: str) -> Iterator[tuple[str, int]]:
    """Yield the computations that one computation calls, and how often each."""
    for instruction in computations[name]:
        called = CALLED.findall(instruction.line)
        if branches := BRANCHES.search(instruction.line):
            called += re.findall(r"[\w.-]+", branches[1])
        iterations = 1
        if instruction.operation == "while":
            condition = re.search(r"\bcondition=%?([\w.-]+)", instruction.line)
            assert condition is not None
            iterations = _trip_count(instruction.line, computations[condition[1]])
        yield from ((target, iterations) for target in called if target in computations)


def _trip_count(line: str, condition: list[Instruction]) -> int:
    """Return the iterations of a loop: XLA's own note, or the bound of its counter.

    1 if neither is there.
    """
    if noted := re.search(r'known_trip_count[^}]*?"n":"(\d+)"', line):
        return int(noted[1])
    bounds = [re.search(r" constant\((\d+)\)", instruction.line) for instruction in condition]
    return max((int(bound[1]) for bound in bounds if bound), default=1)


def _kind(operation: str, computation: str) -> str | None:
    """Return the kind of collective that an operation is, or None.

    The halves of an asynchronous collective count once, at its start. On TPUs a fusion
    of an all-reduce and a slice is how a reduce-scatter is compiled.
    """
    kind = operation.removesuffix("-start")
    if kind not in KINDS:
        return None
    return "reduce-scatter" if computation.startswith("all-reduce-scatter") else kind


def _moved_bytes(instruction: Instruction) -> int:
    """Return the bytes of the larger side of a collective.

    The line of an operation has the type of its result, which is the smaller side of a
    reduce-scatter. That of an asynchronous start has both sides, except for an
    all-reduce, whose sides are alike.
    """
    total = sum(_array_bytes(*array) for array in ARRAY.findall(instruction.type))
    match instruction.operation:
        case "reduce-scatter":
            return total * _group_size(instruction.line)
        case "all-gather-start" | "reduce-scatter-start":
            group = _group_size(instruction.line)
            return total * group // (group + 1)
        case "all-to-all-start" | "collective-permute-start":
            return total // 2
        case _:
            return total


def _group_size(line: str) -> int:
    """Return the number of devices that take part in a collective together."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(listed[1].split(","))
    # [number of groups, size of a group]<=[all devices]
    if tiled := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", line):
        return int(tiled[2])
    # mesh['axis_0'=2,'axis_1'=8] {'axis_1'}: sizes of all axes, and axes of a group
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = {name: int(size) for name, size in re.findall(r"('\w+')=(\d+)", mesh[1])}
        return math.prod(sizes[name] for name in mesh[2].split(","))
    raise ValueError(f"a collective names no group of devices: {line.strip()[:300]}")


def _array_bytes(element: str, dimensions: str) -> int:
    bits = re.search(r"\d+", element)
    size = ELEMENT_BYTES.get(element) or (int(bits[0]) // 8 if bits else 0)
    for dimension in filter(None, dimensions.split(",")):
        size *= int(dimension)
    return size
