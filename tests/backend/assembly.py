"""Reads the assembly of a kernel: its innermost loops, what they multiply and add, and which sums they spill."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LABEL = re.compile(r"(\.LBB\w+):")
_BRANCH = re.compile(r"(?:j\w+|b\.?\w*|cbn?z|tbn?z)\s.*?(\.LBB\w+)")


@dataclass(frozen=True)
class Isa:
    """How LLVM writes an instruction set's vector instructions; the groups of each pattern are register numbers.

    Attributes:
        multiply_add: adds a product to the sums in its register.
        store: writes its registers to memory.
        move: copies register ``source`` to ``target``.
        write: any instruction that writes its registers.
        on_stack: reads or writes a vector on the stack.
    """

    multiply_add: re.Pattern[str]
    store: re.Pattern[str]
    move: re.Pattern[str]
    write: re.Pattern[str]
    on_stack: re.Pattern[str]


def x86(register: str) -> Isa:
    """Return the instruction set of x86-64 with vectors in ``register``: "ymm" or "zmm"."""
    return Isa(
        re.compile(rf"vfn?m(?:add|sub)\d+ps\s.*%{register}(\d+)$"),
        re.compile(rf"vmov\w+\s+%{register}(\d+), .*\)$"),
        re.compile(rf"vmov\w+\s+%{register}(?P<source>\d+), %{register}(?P<target>\d+)$"),
        re.compile(r"v\w+\s.*%[xyz]mm(\d+)$"),
        re.compile(r"^v\w+\s.*\(%rsp"),
    )


NEON = Isa(
    re.compile(r"fml[as]\s+v(\d+)\.4s, v\d+\.4s, v\d+\.(?:4s|s\[\d\])$"),
    re.compile(r"st\w+\s+q(\d+)(?:, q(\d+))?"),
    re.compile(r"mov\s+v(?P<target>\d+)\.16b, v(?P<source>\d+)\.16b"),
    re.compile(r"\w+\s+[sdqv](\d+)(?:\.\w+)?(?:, q(\d+))?"),
    re.compile(r"^(?:ld|st)\w+\s+q.*\[sp"),
)


def innermost_loops(assembly: str) -> list[list[str]]:
    """Return the lines of each loop that has no other loop inside, from its label to its branch back."""
    lines = [line.strip() for line in assembly.splitlines()]
    labels = {match[1]: number for number, line in enumerate(lines) if (match := _LABEL.match(line))}
    spans = set()
    for number, line in enumerate(lines):
        branch = _BRANCH.match(line)
        start = labels.get(branch[1], number) if branch else number
        if start < number:
            spans.add((start, number))
    inner = [span for span in spans if not any(span != s and span[0] <= s[0] and s[1] <= span[1] for s in spans)]
    return [lines[start : stop + 1] for start, stop in sorted(inner)]


def multiply_adds(lines: list[str], isa: Isa) -> int:
    """Count the multiply-adds of whole vectors."""
    return sum(isa.multiply_add.match(line) is not None for line in lines)


def stored_sums(loop: list[str], isa: Isa) -> int:
    """Count the stores of sums in one turn of a loop; operands, which are loaded or copied, do not count."""
    # Two turns: the first finds which registers hold sums from one turn to the next, the second counts.
    holds_sum: set[str] = set()
    stores = 0
    for number, line in enumerate([*loop, *loop]):
        if number == len(loop):
            stores = 0
        if match := isa.multiply_add.match(line):
            holds_sum.add(match[1])
        elif match := isa.store.match(line):
            stores += len(holds_sum.intersection(match.groups()))
        elif (match := isa.move.match(line)) and match["source"] in holds_sum:
            holds_sum.add(match["target"])
        elif match := isa.write.match(line):
            holds_sum.difference_update(match.groups())
    return stores
