"""Bars of text."""

import io

import pytest

from graphprune.bars import bar, shows_blocks


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [(0, 8, "...."), (8, 8, "####"), (4, 8, "##.."), (9, 8, "####"), (-1, 8, "...."), (1, 0, "....")],
)
def test_plain_bars(part, whole, expected):
    assert bar(part, whole, 4) == expected


@pytest.mark.parametrize(("part", "expected"), [(0, "░░"), (16, "██"), (1, "▏░"), (11, "█▍"), (8, "█░")])
def test_block_bars_show_eighths(part, expected):
    assert bar(part, 16, 2, blocks=True) == expected


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_blocks_need_a_terminal_that_can_show_them():
    assert shows_blocks(Terminal(io.BytesIO(), encoding="utf-8"))
    assert not shows_blocks(Terminal(io.BytesIO(), encoding="ascii"))
    assert not shows_blocks(io.StringIO())
