"""Ops that cannot be followed, each with the reason: everything they touch stays as it is.

Without an entry here such an op would be reported as one that graphprune does not know.
"""

from __future__ import annotations

from graphprune.rules.registry import register_pinned

PINNED = {
    "which elements it returns depends on values": """
        masked_select nonzero_static nonzero_numpy argwhere unique_consecutive histogram histogramdd
        _histogramdd_bin_edges _histogramdd_from_bin_cts multinomial take put isin searchsorted segment_reduce
        is_nonzero hash_tensor _assert_async combinations cartesian_prod _sobol_engine_draw
        _unsafe_masked_index _unsafe_masked_index_put_accumulate masked_select_backward _gather_sparse_backward
        value_selecting_reduction_backward nested_to_padded_tensor pad_sequence _pack_padded_sequence
        _pad_packed_sequence _pack_padded_sequence_backward choose_qparams_optimized _choose_qparams_per_tensor
        torchvision::nms
        """,
    "it addresses memory, not axes": """
        as_strided as_strided_scatter empty_strided empty_permuted new_empty_strided resize resize_as set set_data
        _reshape_from_tensor _reshape_alias _shape_as_tensor data retain_grad flatten_dense_tensors
        unflatten_dense_tensors sum_to_size _dim_arange diagonal_scatter _debug_has_internal_overlap
        _to_cpu _unpack_dual _add_batch_dim _remove_batch_dim _propagate_xla_data _backward
        """,
    "a loss compares element by element and averages": """
        binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy_loss ctc_loss
        _ctc_loss hinge_embedding_loss huber_loss kl_div l1_loss margin_ranking_loss mse_loss multi_margin_loss
        multilabel_margin_loss multilabel_margin_loss_forward nll_loss nll_loss2d nll_loss_nd nll_loss_forward
        nll_loss2d_forward poisson_nll_loss smooth_l1_loss soft_margin_loss triplet_margin_loss
        torch_nn::_linear_cross_entropy_batch_chunked torch_nn::_linear_cross_entropy_batch_chunked_no_reduction
        """,
    "positions or neighbours enter its result": """
        affine_grid_generator trapz trapezoid cumulative_trapezoid gradient vander linalg_vander
        cross linalg_cross conv_tbc thnn_conv2d slow_conv3d conv_depthwise3d _chunk_cat norm_except_dim
        _test_serialization_subcmul torchvision::ps_roi_align torchvision::ps_roi_pool
        """,
    "statistics between the elements of two axes": "cov corrcoef",
    "a linear system mixes all rows": """
        linalg_solve linalg_solve_ex _linalg_solve_ex linalg_solve_triangular triangular_solve linalg_lstsq
        cholesky_solve lu_solve linalg_lu_solve linalg_ldl_solve linalg_tensorinv linalg_tensorsolve ormqr orgqr
        """,
    "a fused kernel that demands one width for all heads; unfused attention can be followed": """
        _native_multi_head_attention _transformer_encoder_layer_fwd _triton_multi_head_attention
        _triton_scaled_dot_attention _scaled_dot_product_fused_attention_overrideable
        _scaled_dot_product_attention_math_for_mps _flash_attention_forward _efficient_attention_forward
        """,
    "a fused recurrent kernel": """
        _thnn_fused_lstm_cell _thnn_fused_gru_cell _cudnn_rnn miopen_rnn mkldnn_rnn_layer _lstm_mps
        quantized_gru_cell quantized_lstm_cell quantized_rnn_relu_cell quantized_rnn_tanh_cell
        """,
    "it writes running statistics": "_batch_norm_with_update _batch_norm_no_update cudnn_batch_norm miopen_batch_norm",
    "a gradient formula: prune the model, then differentiate": """
        _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward affine_grid_generator_backward avg_pool2d_backward
        avg_pool3d_backward _batch_norm_impl_index_backward convolution_backward _convolution_double_backward
        conv_tbc_backward cummaxmin_backward cumprod_backward embedding_backward embedding_dense_backward
        embedding_sparse_backward _embedding_bag_backward _embedding_bag_sparse_backward _embedding_bag_dense_backward
        fake_quantize_per_channel_affine_cachemask_backward fake_quantize_per_tensor_affine_cachemask_backward
        gather_backward index_select_backward infinitely_differentiable_gelu_backward matrix_exp_backward
        max_pool2d_with_indices_backward max_pool3d_with_indices_backward mish_backward native_batch_norm_backward
        native_dropout_backward native_group_norm_backward native_layer_norm_backward silu_backward gelu_backward
        hardswish_backward hardtanh_backward leaky_relu_backward elu_backward sigmoid_backward tanh_backward
        threshold_backward softplus_backward _softmax_backward_data _log_softmax_backward_data
        _thnn_differentiable_gru_cell_backward _thnn_differentiable_lstm_cell_backward _thnn_fused_lstm_cell_backward
        trace_backward _weight_norm_differentiable_backward upsample_nearest2d_backward upsample_bilinear2d_backward
        grid_sampler_2d_backward slice_backward select_backward to_dense_backward to_mkldnn_backward
        _fused_rms_norm_backward glu_backward nll_loss_backward mse_loss_backward
        """,
    "values are quantised or packed in blocks": """
        _scaled_mm _scaled_mm_v2 _scaled_grouped_mm _int_mm _weight_int8pack_mm _weight_int4pack_mm
        _convert_weight_to_int4pack _wrapped_linear_prepack _wrapped_quantized_linear_prepacked
        fbgemm_linear_fp16_weight fbgemm_linear_fp16_weight_fp32_activation fbgemm_linear_int8_weight
        fbgemm_linear_int8_weight_fp32_activation fbgemm_linear_quantize_weight fbgemm_pack_gemm_matrix_fp16
        fbgemm_pack_quantized_matrix fused_moving_avg_obs_fake_quant _fused_moving_avg_obs_fq_helper
        quantize_per_tensor quantize_per_channel dequantize _saturate_weight_to_fp16 _rowwise_prune
        """,
    "sparse tensors store positions": """
        to_sparse to_sparse_csr to_sparse_csc to_sparse_bsr to_sparse_bsc _to_sparse to_dense _to_dense to_mkldnn
        sparse_coo_tensor sparse_csr_tensor sparse_csc_tensor sparse_bsr_tensor sparse_bsc_tensor
        sparse_compressed_tensor _sparse_coo_tensor_unsafe _sparse_csr_tensor_unsafe _sparse_csc_tensor_unsafe
        _sparse_bsr_tensor_unsafe _sparse_bsc_tensor_unsafe _sparse_compressed_tensor_unsafe _sparse_mm _sparse_addmm
        sparse_sampled_addmm _sparse_softmax _sparse_log_softmax _sparse_sum smm sspaddmm coalesce
        """,
    "it calls sub-graphs, which are not followed": """
        python::cond python::while_loop python::scan python::map_impl python::associative_scan
        python::flex_attention python::invoke_subgraph python::tag_activation_checkpoint python::strict_mode
        python::triton_kernel_wrapper_functional python::auto_functionalized python::auto_functionalized_v2
        python::run_with_rng_state python::out_dtype python::executorch_call_delegate python::print
        """,
}
"""Reason -> names of ops."""

for _reason, _ops in PINNED.items():
    register_pinned(_ops.split(), _reason)
