"""What the oracle is told: which rules pin more than needed, and why; which ops have no case, and why."""

from __future__ import annotations

_DATA = "the shape of the result depends on values, which nothing but torch.export can trace"

WITHOUT_CASE = {
    **dict.fromkeys(["aten::nonzero", "aten::_unique2", "aten::unique_dim", "aten::bincount"], _DATA),
    **dict.fromkeys(["aten::item", "aten::_local_scalar_dense"], "the result is a number"),
    "graphprune::select_channels": "its result may keep less than its operand: tests/passes/test_free_selections.py",
    "transformers::grouped_mm_fallback": "needs transformers, and is the same as aten::_grouped_mm",
    **dict.fromkeys(
        [
            "aten::_scaled_dot_product_flash_attention",
            "aten::_scaled_dot_product_efficient_attention",
            "aten::_scaled_dot_product_cudnn_attention",
            "aten::pin_memory",
        ],
        "runs on a GPU only",
    ),
}
"""Op -> why it has none. Pinned ops need none: nothing of what they touch is ever removed."""

_REASONS = {
    "whole windows could go, but positions in space and time come from the model's input, which stays": """
        convolution_transposed conv_transpose2d conv_transpose3d conv_transpose3d_groups max_pool1d max_pool2d
        max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool1d_with_indices max_pool2d_with_indices
        max_pool3d_with_indices max_pool2d_rows avg_pool2d_rows adaptive_max_pool3d pixel_shuffle
        pixel_unshuffle im2col stft
        """,
    "the axis comes out in another order, which types cannot say": """
        rot90 rot180 fft_fftshift fft_ifftshift
        """,
    "every other sample of a signal has every other frequency: no unit of a network": """
        fft_fft fft_rfft _fft_r2c _fft_c2c
        """,
    "pairs of rows are neither a product nor a sum of rows": "pdist _pdist_forward",
    "rows and columns are shifted against each other": "triu_far",
    "first or last elements could go, those between could not": "diff pad_crop",
    "one element enters all later ones, so that blocks could not choose inner units of their own": "cumsum",
    "what is overwritten is read by nobody, but its place in the result stays": "select_scatter",
    "looked up by value: the values decide, not the positions": "gather bucketize",
}

OVER_PINNED = {name: reason for reason, names in _REASONS.items() for name in names.split()}
"""Case -> why its rule pins elements that could go."""
