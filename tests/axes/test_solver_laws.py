"""The laws of the algebra, as properties of random programs of solver steps.

A program makes axes and relates them. Every step states a fact about keep-masks (the mask of a product is the outer
product of its factors' masks, both halves of a split make up the whole, unified axes have one mask, ...). Whatever
the solver does to make the facts true, they must hold under *any* masks on the leaves that it leaves free.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from graphprune.axes import (
    Axis,
    AxisSolver,
    KeepMasks,
    direct_sum,
    factors,
    leaves,
    pin_of,
    product,
    resolve,
    size_of,
)
from graphprune.axes.solver import MAX_TERMS

Mask = np.ndarray
Fact = tuple[str, Callable[[Callable[[Axis], Mask]], tuple[Mask, Mask]]]


def outer(masks: list[Mask]) -> Mask:
    result = np.ones(1, bool)
    for mask in masks:
        result = np.logical_and.outer(result, mask).ravel()
    return result


def random_positions(rng: random.Random, size: int) -> list[int]:
    """Return a permutation, a reversal, a rotation, a subset, a transposition of factors, or positions with repeats."""
    everything = list(range(size))
    cut, count = rng.randint(0, size), rng.randint(1, size)
    divisor = rng.choice([d for d in everything if d and size % d == 0] or [1])
    return rng.choice(
        [
            rng.sample(everything, size),
            everything[::-1],
            everything[cut:] + everything[:cut],
            rng.sample(everything, count),
            sorted(rng.sample(everything, count)),
            np.arange(size).reshape(divisor, -1).T.flatten().tolist(),
            everything * 2 if size <= 12 else everything,
            [rng.choice(everything) for _ in range(count)],
        ]
    )


@dataclass
class Program:
    """A random program: the axes it made, their sizes when made, and the facts its steps stated."""

    rng: random.Random
    solver: AxisSolver = field(default_factory=AxisSolver)
    pool: list[Axis] = field(default_factory=list)
    sizes: list[tuple[Axis, int]] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)

    def add(self, *axes: Axis) -> None:
        for axis in axes:
            size = size_of(axis)
            assert isinstance(size, int) and size >= 0
            self.sizes.append((axis, size))
            if size:
                self.pool.append(axis)

    def pick(self, *, at_most: int = 60) -> Axis:
        return self.rng.choice([axis for axis in self.pool if size_of(axis) <= at_most])

    def leaf(self) -> None:
        self.add(self.solver.leaf(self.rng.choice([1, 2, 3, 4, 6, 8])))

    def product(self) -> None:
        parts = [self.pick(at_most=8) for _ in range(self.rng.choice([2, 2, 3]))]
        axis = product(parts)
        self.add(axis)
        self.facts.append((f"product of {len(parts)}", lambda mask: (mask(axis), outer([mask(p) for p in parts]))))

    def sum(self) -> None:
        parts = [self.pick(at_most=24) for _ in range(self.rng.choice([2, 2, 3]))]
        axis = direct_sum(parts)
        self.add(axis)
        self.facts.append(("sum", lambda mask: (mask(axis), np.concatenate([mask(p) for p in parts]))))

    def split(self) -> None:
        axis = self.pick()
        at = self.rng.randint(0, int(size_of(axis)))
        left, right = self.solver.split(axis, at)
        assert size_of(left) == at
        self.add(left, right)
        self.facts.append((f"split at {at}", lambda mask: (mask(axis), np.concatenate([mask(left), mask(right)]))))

    def refine(self) -> None:
        axis = self.pick()
        size = int(size_of(axis))
        divisor = self.rng.choice([d for d in range(1, size + 1) if size % d == 0])
        parts = self.solver.refine(axis, (divisor, size // divisor))
        self.add(*parts)
        self.facts.append(("refine", lambda mask: (mask(axis), outer([mask(p) for p in parts]))))

    def gather(self) -> None:
        axis = self.pick(at_most=24)
        positions = np.array(random_positions(self.rng, int(size_of(axis))))
        taken = self.solver.gather(axis, positions)
        assert size_of(taken) == len(positions)
        self.add(taken)
        if len(set(positions.tolist())) == len(positions):
            self.facts.append(("gather", lambda mask: (mask(taken), mask(axis)[positions])))
        else:  # a repetition may lose elements that its origin keeps, but not keep what its origin loses
            self.facts.append(("gather", lambda mask: (mask(taken), mask(axis)[positions] & mask(taken))))

    def unify(self) -> None:
        a = self.pick()
        b = self.rng.choice([axis for axis in self.pool if size_of(axis) == size_of(a)])
        self.solver.unify(a, b)
        self.facts.append(("unify", lambda mask: (mask(a), mask(b))))

    def pin(self) -> None:
        axis = self.pick()
        self.solver.pin(axis, "test")
        self.facts.append(("pin", lambda mask: (mask(axis), np.ones(int(size_of(axis)), bool))))

    def free_leaves(self) -> list[Axis]:
        found = {leaf.identity: leaf for axis, _ in self.sizes for leaf in leaves(axis)}
        return [leaf for leaf in found.values() if leaf.pin is None and leaf.size]

    def evaluate(self, keep: KeepMasks) -> Callable[[Axis], Mask]:
        def mask(axis: Axis) -> Mask:
            value = keep.mask(axis)
            return np.ones(int(size_of(axis)), bool) if value is None else value

        return mask

    def random_masks(self, generator: np.random.Generator) -> KeepMasks:
        return KeepMasks({leaf.identity: generator.random(int(leaf.size)) < 0.6 for leaf in self.free_leaves()})


def run(seed: int, steps: tuple[str, ...], length: int) -> Program:
    program = Program(random.Random(seed))
    for _ in range(3):
        program.leaf()
    for _ in range(length):
        getattr(program, program.rng.choice(steps))()
    return program


ALL = ("leaf", "product", "sum", "split", "refine", "refine", "gather", "gather", "unify", "unify", "unify", "pin")
SUMS = ("leaf", "sum", "split", "unify", "unify", "unify", "pin")
seeds = st.integers(0, 10**9)


@given(seeds, st.integers(4, 24))
def test_every_step_holds_under_any_masks(seed, length):
    program = run(seed, ALL, length)
    generator = np.random.default_rng(seed)
    for _ in range(3):
        keep = program.random_masks(generator)
        mask = program.evaluate(keep)
        for name, fact in program.facts:
            left, right = fact(mask)
            assert left.tolist() == right.tolist(), name
        for axis, _ in program.sizes:
            assert keep.count(axis) == int(mask(axis).sum())
            assert keep.changes(axis) == (not mask(axis).all())


@given(seeds, st.integers(4, 24))
def test_no_axis_is_empty_while_every_leaf_keeps_an_element(seed, length):
    program = run(seed, ALL, length)
    generator = np.random.default_rng(seed)
    keep = KeepMasks(
        {leaf.identity: np.arange(leaf.size) == generator.integers(int(leaf.size)) for leaf in program.free_leaves()}
    )
    for axis, size in program.sizes:
        assert size == 0 or keep.count(axis) > 0


@given(seeds, st.integers(4, 24))
def test_sizes_never_change(seed, length):
    program = run(seed, ALL, length)
    for axis, size in program.sizes:
        assert size_of(axis) == size
        assert all(isinstance(leaf.size, int) and leaf.size >= 0 for leaf in leaves(axis))


@given(seeds, st.integers(4, 20))
def test_sums_are_solved_without_loss(seed, length):
    """Without products a program says which elements are the same one: exactly the unpinned classes stay free."""
    program = run(seed, SUMS, length)
    elements: dict[tuple[int, int], tuple[int, int]] = {}

    def find(element):
        while elements.setdefault(element, element) != element:
            element = elements[element]
        return element

    replay = _Replay(random.Random(seed), find, elements)
    replay.run(length)
    assert sum(int(leaf.size) for leaf in program.free_leaves()) == replay.free_classes()


class _Replay:
    """Runs the same program on lists of elements, with union-find instead of types."""

    def __init__(self, rng, find, elements):
        self.rng, self.find, self.elements = rng, find, elements
        self.pool: list[list] = []
        self.pinned: list = []
        self.counter = 0

    def run(self, length):
        for _ in range(3):
            self.leaf()
        for _ in range(length):
            getattr(self, self.rng.choice(SUMS))()

    def pick(self, at_most=60):
        return self.rng.choice([axis for axis in self.pool if len(axis) <= at_most])

    def leaf(self):
        size = self.rng.choice([1, 2, 3, 4, 6, 8])
        axis = [(self.counter, i) for i in range(size)]
        self.counter += 1
        for element in axis:
            self.find(element)
        self.pool.append(axis)
        if size == 1:
            self.pinned += axis

    def sum(self):
        parts = [self.pick(24) for _ in range(self.rng.choice([2, 2, 3]))]
        self.pool.append([element for part in parts for element in part])

    def split(self):
        axis = self.pick()
        at = self.rng.randint(0, len(axis))
        self.pool += [half for half in (axis[:at], axis[at:]) if half]

    def unify(self):
        a = self.pick()
        b = self.rng.choice([axis for axis in self.pool if len(axis) == len(a)])
        for first, second in zip(a, b):
            self.elements[self.find(first)] = self.find(second)

    def pin(self):
        self.pinned += self.pick()

    def free_classes(self):
        roots = {self.find(element) for element in list(self.elements)}
        return len(roots - {self.find(element) for element in self.pinned})


# ------------------------------------------------------------------------------------------------------ single laws


@given(seeds, st.integers(4, 16))
def test_unify_is_reflexive(seed, length):
    program = run(seed, ALL, length)
    before = [repr(axis) for axis, _ in program.sizes]
    for axis, _ in program.sizes:
        program.solver.unify(axis, axis)
    assert [repr(axis) for axis, _ in program.sizes] == before


@given(seeds, st.integers(4, 16))
def test_unify_is_symmetric(seed, length):
    """Both orders leave equally many free elements."""
    free = []
    for swap in (False, True):
        program = run(seed, ALL, length)
        a = program.pick()
        b = program.rng.choice([axis for axis in program.pool if size_of(axis) == size_of(a)])
        program.solver.unify(*((b, a) if swap else (a, b)))
        free.append(sorted(int(leaf.size) for leaf in program.free_leaves()))
    assert free[0] == free[1]


@given(seeds, st.integers(4, 16))
def test_unify_is_idempotent(seed, length):
    program = run(seed, ALL, length)
    a = program.pick()
    b = program.rng.choice([axis for axis in program.pool if size_of(axis) == size_of(a)])
    program.solver.unify(a, b)
    once = sorted(int(leaf.size) for leaf in program.free_leaves())
    program.solver.unify(a, b)
    assert sorted(int(leaf.size) for leaf in program.free_leaves()) == once


def test_split_constrains_nothing():
    solver = AxisSolver()
    a, b = solver.leaf(3), solver.leaf(4)
    whole = product([a, b])
    left, right = solver.split(whole, 5)
    assert (size_of(left), size_of(right)) == (5, 7)
    assert sum(int(leaf.size) for leaf in leaves(whole)) == 3 + 4
    assert not any(leaf.pin for leaf in leaves(whole))


def test_distributivity():
    """(A + B) * C is A*C + B*C: cutting the product between A and B cuts its outer factor there."""
    solver = AxisSolver()
    head, tail = solver.leaf(2), solver.leaf(3)
    row = solver.leaf(4)
    left, right = solver.split(product([direct_sum([head, tail]), row]), 8)
    assert [resolve(f) for f in factors(left)] == [head, row]
    assert [resolve(f) for f in factors(right)] == [tail, row]


def test_a_sum_meets_a_product():
    solver = AxisSolver()
    a, b, c = solver.leaf(8), solver.leaf(4), solver.leaf(4)
    solver.unify(direct_sum([a, b]), product([solver.leaf(3), c]))
    keep = KeepMasks({resolve(c).identity: np.array([1, 0, 0, 1], bool)})
    assert keep.mask(b).tolist() == [True, False, False, True]
    assert keep.mask(a).tolist() == [True, False, False, True] * 2


def test_pinned_absorbs():
    solver = AxisSolver()
    solver.node = "culprit"
    fixed = solver.pinned(12, "because")
    outer_axis, inner = solver.leaf(3), solver.leaf(4)
    solver.unify(product([outer_axis, inner]), fixed)
    for axis in (outer_axis, inner):
        pin = pin_of(axis)
        assert pin is not None and (pin.reason, pin.node) == ("because", "culprit")


def test_pins_are_per_leaf():
    solver = AxisSolver()
    axis = solver.leaf(10)
    left, right = solver.split(axis, 4)
    solver.pin(left, "selected")
    assert pin_of(right) is None
    assert pin_of(axis) is None


def test_occurs_check():
    """x = (x split differently) has solutions, x = x * y has none but y = 1: nothing loops, nothing is lost."""
    solver = AxisSolver()
    axis = solver.leaf(6)
    unit, _ = solver.split(solver.leaf(2), 1)
    solver.unify(axis, product([unit, axis]))
    assert pin_of(unit) is not None
    assert pin_of(axis) is None


def test_an_axis_equal_to_its_own_rotation_is_constant_on_cycles():
    solver = AxisSolver()
    axis = solver.leaf(6)
    left, right = solver.split(axis, 2)
    solver.unify(axis, direct_sum([right, left]))
    (free,) = {leaf.identity for leaf in leaves(axis)}
    assert KeepMasks({free: np.array([1, 0], bool)}).mask(axis).tolist() == [True, False] * 3


def test_products_meet_in_a_common_refinement():
    solver = AxisSolver()
    a, b = solver.leaf(4), solver.leaf(6)
    c, d = solver.leaf(8), solver.leaf(3)
    solver.unify(product([a, b]), product([c, d]))
    assert [leaf.size for leaf in leaves(product([a, b]))] == [4, 2, 3]
    assert not any(leaf.pin for leaf in leaves(product([a, b])))


@pytest.mark.parametrize(("first", "second"), [((6, 4), (4, 6)), ((2, 9), (3, 6)), ((10, 6), (15, 4))])
def test_products_that_do_not_line_up_stay_sound(first, second):
    solver = AxisSolver()
    a, b = ([solver.leaf(size) for size in sizes] for sizes in (first, second))
    solver.unify(product(a), product(b))
    free = {leaf.identity: leaf for axis in a + b for leaf in leaves(axis) if leaf.pin is None}
    keep = KeepMasks({identity: np.arange(leaf.size) % 2 == 0 for identity, leaf in free.items()})
    left, right = keep.mask(product(a)), keep.mask(product(b))
    assert (left is None) == (right is None)
    assert left is None or left.tolist() == right.tolist()


def test_sizes_that_differ_are_pinned():
    solver = AxisSolver()
    a, b = solver.leaf(4), solver.leaf(5)
    solver.unify(a, b)
    for axis in (a, b):
        pin = pin_of(axis)
        assert pin is not None and "sizes 4 and 5" in pin.reason


def test_a_sum_of_very_many_terms_is_pinned():
    solver = AxisSolver()
    many = direct_sum(solver.leaf(2) for _ in range(MAX_TERMS))
    solver.unify(many, direct_sum([solver.leaf(MAX_TERMS), solver.leaf(MAX_TERMS)]))
    assert pin_of(many) is not None


# ------------------------------------------------------------------------------------------------------ dynamic sizes


def test_bare_symbols_are_pinned_and_products_with_them_stay_open():
    s0 = sympy.Symbol("s0", positive=True, integer=True)
    solver = AxisSolver()
    batch, both = solver.leaf(s0), solver.leaf(12 * s0)
    assert pin_of(batch) is not None and pin_of(both) is None
    heads = solver.leaf(12)
    solver.unify(both, product([batch, heads]))
    assert pin_of(heads) is None
    keep = KeepMasks({resolve(heads).identity: np.arange(12) < 5})
    assert keep.count(both) == 5 * s0


def test_dynamic_products_refine():
    s0 = sympy.Symbol("s0", positive=True, integer=True)
    solver = AxisSolver()
    batch, channels = solver.leaf(s0), solver.leaf(12)
    groups, width = solver.leaf(4 * s0), solver.leaf(3)
    solver.unify(product([batch, channels]), product([groups, width]))
    assert [leaf.size for leaf in leaves(channels)] == [4, 3]
    assert pin_of(channels) is None


def test_dynamic_sums_that_do_not_line_up_are_pinned():
    s0 = sympy.Symbol("s0", positive=True, integer=True)
    solver = AxisSolver()
    a, b = solver.leaf(5), solver.leaf(2 * s0)
    solver.unify(direct_sum([a, b]), direct_sum([solver.leaf(2 * s0), solver.leaf(5)]))
    assert pin_of(a) is not None
