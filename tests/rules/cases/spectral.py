"""Fourier transforms and complex numbers."""

# ruff: noqa: B008 (defaults bind a loop variable)

from __future__ import annotations

import torch

from tests.rules.cases.base import aten, case, overload

for _prefix in ("", "i", "r", "ir", "h", "ih"):
    _real = _prefix in ("ir", "h")
    case(f"fft_{_prefix}fft", lambda x, op=overload(f"fft_{_prefix}fft"): op(x, None, 1), (3, 6, 4), free=7,
         complex_results=not _real, zeros_agree=False)  # fmt: skip
    for _rank in ("2", "n"):
        _name = f"fft_{_prefix}fft{_rank}"
        case(_name, lambda x, op=overload(_name): op(x, [4, 6], [1, 2]), (3, 4, 6), free=3,
             complex_results=not _real, zeros_agree=False)  # fmt: skip
case("fft_fftn_of_the_last", lambda x: aten.fft_fftn.default(x, [4, 6]), (3, 4, 6), free=3, complex_results=True)
for _name in ("fft_fftshift", "fft_ifftshift"):
    case(_name, lambda x, op=overload(_name): op(x, [1]), (3, 4), free=3)
case("_fft_r2c", lambda x: aten._fft_r2c.default(x, [1], 0, True), (3, 4), free=3, complex_results=True)
case("_fft_c2c", lambda x: aten._fft_c2c.default(aten.complex.default(x, x), [1], 0, True), (3, 4), free=3,
     complex_results=True)  # fmt: skip
case("_fft_c2r", lambda x: aten._fft_c2r.default(aten.complex.default(x, x), [1], 0, 6), (3, 4), free=3)
_WINDOW = torch.hann_window(8, dtype=torch.float64)
case("stft", lambda x, w: aten.stft.default(x, 8, 4, 8, w, return_complex=True), (3, 32), _WINDOW, free=3,
     complex_results=True)  # fmt: skip
case("istft", lambda x, w: aten.istft.default(aten.complex.default(x, x), 8, 4, 8, w), (3, 5, 9), _WINDOW, free=3)
case("view_as_complex", aten.view_as_complex.default, (3, 4, 2), free=7, complex_results=True)
case("view_as_real", lambda x, y: aten.view_as_real.default(aten.complex.default(x, y)), (3, 4), (4,), free=7)
case("complex", aten.complex.default, (3, 4), (4,), free=7, complex_results=True)
case("polar", aten.polar.default, (3, 4), (4,), free=7, complex_results=True)
_UNARY = ["real", "imag", "conj", "resolve_conj", "angle"]
case("parts_of_complex", lambda x: [aten.abs.default(overload(name)(aten.complex.default(x, x))) for name in _UNARY],
     (3, 4), free=7)  # fmt: skip
