"""Attention."""

from __future__ import annotations

from tests.rules.cases.base import aten, case, pieces

_sdpa = aten.scaled_dot_product_attention.default
case("attention", _sdpa, (2, 4, 5, 6), (2, 4, 7, 6), (2, 4, 7, 3), free=2 + 4 + 5 + 6 + 3)
case("attention_masked", _sdpa, (2, 4, 5, 6), (2, 4, 7, 6), (2, 4, 7, 3), (4, 5, 7), free=20)
case("attention_causal", lambda q, k, v: _sdpa(q, k, v, None, 0.0, True), (2, 4, 5, 6), (2, 4, 5, 6), (2, 4, 5, 3),
     free=15)  # fmt: skip
case("attention_scaled", lambda q, k, v: _sdpa(q, k, v, scale=0.3), (2, 4, 5, 6), (2, 4, 7, 6), (2, 4, 7, 3), free=20)
case("attention_of_groups", lambda q, k, v: _sdpa(q, k, v, enable_gqa=True), (2, 6, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4),
     free=2 + 3 + 2 + 5 + 4 + 4)  # fmt: skip
case("_scaled_dot_product_attention_math",
     lambda q, k, v: pieces(aten._scaled_dot_product_attention_math.default(q, k, v), 2),
     (2, 4, 5, 6), (2, 4, 7, 6), (2, 4, 7, 3), free=20)  # fmt: skip
case("_scaled_dot_product_flash_attention_for_cpu",
     lambda q, k, v, m: aten._scaled_dot_product_flash_attention_for_cpu.default(q, k, v, attn_mask=m)[0],
     (2, 4, 5, 6), (2, 4, 7, 6), (2, 4, 7, 6), (2, 4, 5, 7), free=2 + 4 + 5 + 6)  # fmt: skip
