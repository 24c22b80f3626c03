"""Activations of many tokens in the form that sparse linear layers compute in: tiles of [features, tokens].

Tokens fill the vectors there. A tensor [..., features] in this form is [tiles, features, pitch]: each tile holds all
features of some consecutive tokens, a multiple of the vector width. Where the tokens do not divide, the last tile is
moved back to end at the last token; where they do not even fill one tile, it repeats the last token. Every kernel
computes the repeated ones as well, with equal results, so none has to care.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import tile_starts
from graphprune.backend.kernels.contract import Kernel
from graphprune.backend.kernels.emit import building, flat_view, load, registers, splat, store
from graphprune.backend.kernels.tiling import LINE_FLOATS, Tile, choose_tile
from graphprune.backend.kernels.transpose import transposed
from graphprune.backend.target import CompileTarget

_TILE_FLOATS = 40  # of a tile's width: the narrower, the longer the rows of a block, and the less often sums move
_STEP_OVERHEAD = 3.0  # of one non-zero of a sparse layer, in vector operations
_TASK_FEATURES = 64  # that a task of a change of form moves


def token_tile(x_shape: Sequence[int], target: CompileTarget, vectors: int | None = None) -> Tile:
    """Return the tile in which sparse linear layers keep activations [..., features], of at most ``vectors``."""
    lanes = target.lanes
    most = vectors or max(4, _TILE_FLOATS // lanes)
    return choose_tile(1, prod(x_shape[:-1]), lanes, most, overhead=_STEP_OVERHEAD)


def tiled_shape(tile: Tile, features: int) -> tuple[int, int, int]:
    """Return the shape in tiles of a tensor of ``features`` features."""
    return (tile.count, features, tile.pitch)


def line_features(features: int, lanes: int) -> int:
    """Return how many features to transpose together: a cache line of them, or else what one vector holds."""
    return LINE_FLOATS if features >= LINE_FLOATS > lanes else lanes


def gather_tile(x: tirx.Buffer, depth: int, tile: Tile, token: Any, first: Any, count: int, target, base: Any) -> None:
    """Emit ``target[base + k * pitch + t] = x[token + t, first + k]`` for ``count`` features k of a tile's tokens t.

    Features are moved by the ``line_features`` of them. The last ones are moved back to end at the last feature, so
    that the target needs room for as many before ``base``, and as many after the last one.
    """
    lanes, width = tile.lanes, tile.pitch

    def line(t: Any) -> Any:
        return (token + t if tile.columns == width else T.min(token + t, tile.grid_columns - 1)) * depth

    if depth < lanes:
        with T.serial(depth) as k, T.serial(width) as t:
            store(target, base + k * width + t, load(x, line(t) + k, 1), 1)
        return
    run = line_features(depth, lanes)
    with T.serial(-(-count // run)) as step:
        k = T.Bind(T.min(first + step * run, depth - run))
        with T.serial(width // lanes) as v:
            lines = [T.Bind(line(v * lanes + i) + k) for i in range(lanes)]
            start = T.Bind(base + (k - first) * width + v * lanes)
            for part in range(0, run, lanes):
                for i, column in enumerate(transposed([load(x, line + part, lanes) for line in lines])):
                    store(target, start + (part + i) * width, column, lanes)


def to_tiles(shape: Sequence[int], tile: Tile) -> Kernel:
    """Return the kernel that brings a tensor [..., features] into tiles."""
    features = shape[-1]
    out_shape = tiled_shape(tile, features)
    run = line_features(features, tile.lanes)
    count = min(features, max(run, _TASK_FEATURES))
    tasks = -(-features // count)
    constants = (_tokens(tile),)
    with building("to_tiles") as emitter:
        x, tokens, out = _arguments(shape, *constants, out_shape)
        with T.parallel(tile.count * tasks) as task:
            first = T.Bind(T.min(task % tasks * count, features - count))
            token = T.Bind(tokens[task // tasks])
            base = T.Bind((task // tasks * features + first) * tile.pitch)
            gather_tile(x, features, tile, token, first, count, out, base)
    return Kernel("to_tiles", emitter.function, constants, out_shape, note=_note(tile))


def from_tiles(shape: Sequence[int], tile: Tile) -> Kernel:
    """Return the kernel that brings a tensor [..., features] back from tiles."""
    features, width, lanes = shape[-1], tile.pitch, tile.lanes
    run = line_features(features, lanes)
    count = min(features, max(run, _TASK_FEATURES))
    tasks = -(-features // count)
    constants = (_tokens(tile),)
    with building("from_tiles") as emitter:
        x, tokens, out = _arguments(tiled_shape(tile, features), *constants, shape)
        with T.parallel(tile.count * tasks) as task:
            first = T.Bind(T.min(task % tasks * count, features - count))
            token = T.Bind(tokens[task // tasks])
            source = T.Bind(task // tasks * (features * width))
            if features < lanes:
                with T.serial(features) as k, T.serial(tile.columns) as t:
                    store(out, (token + t) * features + k, load(x, source + k * width + t, 1), 1)
            else:
                with T.serial(-(-count // run)) as step:
                    k = T.Bind(T.min(first + step * run, features - run))
                    _rows_from_tile(x, source + k * width, tile, run, out, token * features + k, features)
    return Kernel("from_tiles", emitter.function, constants, tuple(shape), note=_note(tile))


def _rows_from_tile(x, source: Any, tile: Tile, run: int, out, target: Any, features: int) -> None:
    """Emit ``out[target + t * features + k] = x[source + k * pitch + t]`` for ``run`` features k, all tokens t."""
    lanes, width = tile.lanes, tile.pitch

    def square(start: Any, part: int, tokens: int) -> None:
        lines = [load(x, source + (part + i) * width + start, lanes) for i in range(lanes)]
        for i, row in enumerate(transposed(lines)[:tokens]):
            store(out, target + (start + i) * features + part, row, lanes)

    whole, rest = divmod(tile.columns, lanes)
    with T.serial(whole) as v:
        for part in range(0, run, lanes):
            square(v * lanes, part, lanes)
    if rest:
        for part in range(0, run, lanes):
            square(whole * lanes, part, rest)


def tiled_layer_norm(width: int, epsilon: float, tile: Tile) -> Kernel:
    """Return the kernel that normalises each token's ``width`` features in tiles.

    Its buffers are x, scale and shift (both [width]), and the result.
    """
    lanes, distance, shape = tile.lanes, tile.pitch, tiled_shape(tile, width)
    # A cache line of tokens at a time, the last of a tile moved back.
    vectors = min(max(1, LINE_FLOATS // lanes), distance // lanes)
    groups = -(-distance // (vectors * lanes))
    shifts = range(0, vectors * lanes, lanes)
    with building("layer_norm_tiles") as emitter:
        x, scale, shift, out = _arguments(shape, (width,), (width,), shape)
        with T.parallel(tile.count * groups) as task:
            column = T.min(task % groups * (vectors * lanes), distance - vectors * lanes)
            start = T.Bind(task // groups * (width * distance) + column)
            sums = registers(vectors, lanes, on_stack=True)

            def add_up(term) -> list:
                for at in shifts:
                    store(sums, at, splat(0.0, lanes), lanes)
                with T.serial(width) as k:
                    for at in shifts:
                        value = load(x, start + k * distance + at, lanes)
                        store(sums, at, load(sums, at, lanes) + term(value, at), lanes)
                return [T.Bind(load(sums, at, lanes) * splat(1.0 / width, lanes)) for at in shifts]

            means = add_up(lambda value, at: value)

            def square(value, at):
                centred = T.Bind(value - means[at // lanes])
                return centred * centred

            variances = add_up(square)
            inverses = [T.Bind(splat(1.0, lanes) / T.sqrt(v + splat(epsilon, lanes))) for v in variances]
            with T.serial(width) as k:
                factor, term = T.Bind(splat(scale[k], lanes)), T.Bind(splat(shift[k], lanes))
                for at, mean, inverse in zip(shifts, means, inverses, strict=True):
                    place = T.Bind(start + k * distance + at)
                    store(out, place, (load(x, place, lanes) - mean) * inverse * factor + term, lanes)
    return Kernel("layer_norm_tiles", emitter.function, (), shape, note=_note(tile))


def _note(tile: Tile) -> str:
    return f"{tile.count} tiles of {tile.columns} tokens"


def _tokens(tile: Tile) -> np.ndarray:
    """Return the first token of each tile.

    It is an argument because TVM takes any function of one tensor for a possible reshape and looks inside.
    """
    return tile_starts(tile.grid_columns, tile.columns).astype(np.int32)


def _arguments(*arguments: Sequence[int] | np.ndarray) -> list[tirx.Buffer]:
    """Declare a buffer for each shape, of float32, or constant, of its dtype, and return flat views of them."""
    forms = [(a.shape, str(a.dtype)) if isinstance(a, np.ndarray) else (tuple(a), "float32") for a in arguments]
    buffers = [T.arg(f"b{i}", T.buffer(shape, dtype, layout=None)) for i, (shape, dtype) in enumerate(forms)]
    return [flat_view(buffer) for buffer in buffers]
