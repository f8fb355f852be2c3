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

# On TPUs XLA overlaps a matmul with the gather of its weights: a loop multiplies the
# part at hand while a permute brings the next part around a ring of devices. The same
# is done for the reduce-scatter of a matmul's result. These are the loops' bodies.
RING = re.compile(r"windowed_dot_general_body_(ag|rs)")
RING_KINDS = {"ag": "all-gather", "rs": "reduce-scatter"}

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

    Whatever is in a loop counts once per iteration. A ring counts as the one gather or
    reduce-scatter that it is (see RING), with the bytes of all its permutes.
    """
    computations, entry = _computations(program)
    found: dict[str, Collective] = {}

    def add(kind: str, count: int, moved: int) -> None:
        row = found.setdefault(kind, {"count": 0, "bytes": 0})
        row["count"] += count
        row["bytes"] += moved

    for name, times in _executions(computations, entry).items():
        ring = RING.search(name)
        for instruction in computations[name]:
            started = RING.search(instruction.line) if instruction.operation == "while" else None
            kind = _kind(instruction.operation, name)
            if started:
                add(RING_KINDS[started[1]], times, 0)
            elif ring and kind == "collective-permute":
                add(RING_KINDS[ring[1]], 0, times * _moved_bytes(instruction))
            elif kind:
                add(kind, times, times * _moved_bytes(instruction))
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
            parts = re.findall(r"\b(condition|body)=%?([\w.-]+)", instruction.line)
            condition, body = (computations[dict(parts)[name]] for name in ("condition", "body"))
            iterations = _trip_count(instruction.line, condition, body)
        yield from ((target, iterations) for target in called if target in computations)


def _trip_count(line: str, condition: list[Instruction], body: list[Instruction]) -> int:
    """Return the number of iterations of a loop.

    It is what XLA notes; or how often the counter, which begins at 0, is increased
    before it reaches its bound; or 1 if neither is there.
    """
    if noted := re.search(r'known_trip_count[^}]*?"n":"(\d+)"', line):
        return int(noted[1])
    bounds = [_constant(instruction) for instruction in condition]
    bound = max((bound for bound in bounds if bound is not None), default=1)
    return math.ceil(bound / _increment(condition, body))


def _increment(condition: list[Instruction], body: list[Instruction]) -> int:
    """Return what an iteration adds to the loop's counter; 1 if it cannot be read.

    A ring is unrolled, so that its counter advances by more than 1.
    """
    by_name = {instruction.name: instruction for instruction in body}
    counters = [
        re.search(r"\bindex=(\d+)", instruction.line)
        for instruction in condition
        if instruction.operation == "get-tuple-element"
    ]
    # The last line of the body is the tuple that the next iteration gets.
    next_values = _operands(body[-1]) if body else []
    for counter in filter(None, counters):
        sum_ = by_name.get(next_values[int(counter[1])]) if next_values else None
        if sum_ is None or sum_.operation != "add":
            continue
        for operand in _operands(sum_):
            added = _constant(by_name[operand]) if operand in by_name else None
            if added:
                return added
    return 1


def _operands(instruction: Instruction) -> list[str]:
    """Return the names of an operation's arguments."""
    arguments = instruction.line.split(f" {instruction.operation}(", 1)[1].split("), ")[0]
    return re.findall(r"%([\w.-]+)", arguments)


def _constant(instruction: Instruction) -> int | None:
    number = re.search(r" constant\((\d+)\)", instruction.line)
    return int(number[1]) if number else None


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
