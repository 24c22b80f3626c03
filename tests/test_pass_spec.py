"""The command line's spelling of passes: everything a pass prints can be read back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune import pass_spec
from graphprune.criteria import L1, L2, BNScale, Criterion
from graphprune.errors import PassError
from graphprune.pass_base import Pass


@dataclass(frozen=True)
class ShrinkMost(Pass):
    amount: float = 0.25
    rounds: int | None = None
    norm: Literal["l1", "l2"] = "l1"
    ignore: Sequence[str] = ()
    strict: bool = False
    label: int | str = "none given"
    sizes: tuple[int, ...] | None = None
    criterion: Criterion = L1()  # noqa: RUF009  # frozen, so it can be shared
    layers: Sequence[tuple[str, float]] = ()
    ratios: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class NeedsAmount(Pass):
    amount: float


@pytest.fixture(autouse=True)
def known_passes(monkeypatch: pytest.MonkeyPatch):
    passes: dict[str, Any] = {cls.command_name(): cls for cls in (ShrinkMost, NeedsAmount)}
    monkeypatch.setattr(pass_spec, "available_passes", lambda: passes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shrink-most", ShrinkMost()),
        ("shrink-most{}", ShrinkMost()),
        (" shrink-most { amount = 0.5 , rounds=3 } ", ShrinkMost(amount=0.5, rounds=3)),
        ("shrink-most{rounds=none,strict=true}", ShrinkMost(rounds=None, strict=True)),
        ("shrink-most{norm=l2}", ShrinkMost(norm="l2")),
        ("shrink-most{ignore=[layer1.0.conv1,head.*]}", ShrinkMost(ignore=("layer1.0.conv1", "head.*"))),
        ("shrink-most{ignore=[]}", ShrinkMost(ignore=())),
        ("shrink-most{label=7}", ShrinkMost(label=7)),
        ("shrink-most{label=seven}", ShrinkMost(label="seven")),
        ("shrink-most{sizes=[1,2]}", ShrinkMost(sizes=(1, 2))),
        ("shrink-most{criterion=l2}", ShrinkMost(criterion=L2())),
        ("shrink-most{criterion=bn-scale}", ShrinkMost(criterion=BNScale())),
        ("shrink-most{layers=[[a.*,0.5],[b,1]]}", ShrinkMost(layers=(("a.*", 0.5), ("b", 1.0)))),
        ("shrink-most{ratios=[[a.*,0.5],[b,1]]}", ShrinkMost(ratios={"a.*": 0.5, "b": 1.0})),
        ("needs-amount{amount=1e-3}", NeedsAmount(1e-3)),
    ],
)
def test_reads(text: str, expected: Pass):
    assert pass_spec.parse_pass(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shrink-mos", "did you mean 'shrink-most'"),
        ("nothing", "passes: shrink-most, needs-amount"),
        ("shrink-most{amuont=1}", "did you mean 'amount'"),
        ("shrink-most{amount=much}", "'much' is not a number"),
        ("shrink-most{rounds=1.5}", "'1.5' is not an integer or none"),
        ("shrink-most{norm=l3}", "not one of l1, l2"),
        ("shrink-most{strict=maybe}", "not true or false"),
        ("shrink-most{ignore=head}", "not a list"),
        ("shrink-most{sizes=[1,two]}", "not a list"),
        ("shrink-most{amount=[1]}", "not a number"),
        ("shrink-most{criterion=wanda}", "needs no data (l1, l2, bn-scale, random, even)"),
        ("shrink-most{layers=[[a]]}", "not a list"),
        ("shrink-most{amount=1", "found 'the end'"),
        ("shrink-most{amount}", "expected '='"),
        ("shrink-most{amount=1}}", "nothing may follow"),
        ("shrink-most{amount=1,amount=2}", "given twice"),
        ("{amount=1}", "expected the name of a pass"),
        ("", "expected the name of a pass"),
        ("needs-amount", "needs the option 'amount'"),
    ],
)
def test_refuses(text: str, message: str):
    with pytest.raises(PassError) as error:
        pass_spec.parse_pass(text)
    assert message in str(error.value)


words = st.text("abcxyz019._*-", min_size=1)


@given(
    st.builds(
        ShrinkMost,
        amount=st.floats(allow_nan=False),
        rounds=st.none() | st.integers(),
        norm=st.sampled_from(["l1", "l2"]),
        ignore=st.lists(words).map(tuple),
        strict=st.booleans(),
        sizes=st.none() | st.lists(st.integers()).map(tuple),
        criterion=st.sampled_from([L1(), L2(), BNScale()]),
        layers=st.lists(st.tuples(words, st.floats(allow_nan=False))).map(tuple),
        ratios=st.dictionaries(words, st.floats(allow_nan=False)),
    )
)
def test_reads_what_passes_print(pass_: ShrinkMost):
    assert pass_spec.parse_pass(pass_.spec()) == pass_
