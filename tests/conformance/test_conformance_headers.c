/* Every function has the signature of mlx-c 0.6 (the parameters as its headers
 * declare them) and leaves the library; enums and structs have its values and
 * sizes. */
#include "conformance/check.h"

#pragma GCC diagnostic error "-Wincompatible-pointer-types"

/* clang-format off */
#define FUNCTIONS \
    SAME(size_t, mlx_dtype_size, mlx_dtype) \
    SAME(int, mlx_array_tostring, mlx_string *, mlx_array) \
    SAME(mlx_array, mlx_array_new, void) \
    SAME(int, mlx_array_free, mlx_array) \
    SAME(mlx_array, mlx_array_new_bool, bool) \
    SAME(mlx_array, mlx_array_new_int, int) \
    SAME(mlx_array, mlx_array_new_float32, float) \
    SAME(mlx_array, mlx_array_new_float, float) \
    SAME(mlx_array, mlx_array_new_float64, double) \
    SAME(mlx_array, mlx_array_new_double, double) \
    SAME(mlx_array, mlx_array_new_complex, float, float) \
    SAME(mlx_array, mlx_array_new_data, const void *, const int *, int, mlx_dtype) \
    SAME(mlx_array, mlx_array_new_data_managed, void *, const int *, int, mlx_dtype, void ( *)(void *)) \
    SAME(mlx_array, mlx_array_new_data_managed_payload, void *, const int *, int, mlx_dtype, void *, void ( *)(void *)) \
    SAME(int, mlx_array_set, mlx_array *, mlx_array) \
    SAME(int, mlx_array_set_bool, mlx_array *, bool) \
    SAME(int, mlx_array_set_int, mlx_array *, int) \
    SAME(int, mlx_array_set_float32, mlx_array *, float) \
    SAME(int, mlx_array_set_float, mlx_array *, float) \
    SAME(int, mlx_array_set_float64, mlx_array *, double) \
    SAME(int, mlx_array_set_double, mlx_array *, double) \
    SAME(int, mlx_array_set_complex, mlx_array *, float, float) \
    SAME(int, mlx_array_set_data, mlx_array *, const void *, const int *, int, mlx_dtype) \
    SAME(size_t, mlx_array_itemsize, mlx_array) \
    SAME(size_t, mlx_array_size, mlx_array) \
    SAME(size_t, mlx_array_nbytes, mlx_array) \
    SAME(size_t, mlx_array_ndim, mlx_array) \
    SAME(const int *, mlx_array_shape, mlx_array) \
    SAME(const size_t *, mlx_array_strides, mlx_array) \
    SAME(int, mlx_array_dim, mlx_array, int) \
    SAME(mlx_dtype, mlx_array_dtype, mlx_array) \
    SAME(int, mlx_array_eval, mlx_array) \
    SAME(int, mlx_array_item_bool, bool *, mlx_array) \
    SAME(int, mlx_array_item_uint8, uint8_t *, mlx_array) \
    SAME(int, mlx_array_item_uint16, uint16_t *, mlx_array) \
    SAME(int, mlx_array_item_uint32, uint32_t *, mlx_array) \
    SAME(int, mlx_array_item_uint64, uint64_t *, mlx_array) \
    SAME(int, mlx_array_item_int8, int8_t *, mlx_array) \
    SAME(int, mlx_array_item_int16, int16_t *, mlx_array) \
    SAME(int, mlx_array_item_int32, int32_t *, mlx_array) \
    SAME(int, mlx_array_item_int64, int64_t *, mlx_array) \
    SAME(int, mlx_array_item_float32, float *, mlx_array) \
    SAME(int, mlx_array_item_float64, double *, mlx_array) \
    SAME(int, mlx_array_item_complex64, mlx_complex64_t *, mlx_array) \
    SAME(const bool *, mlx_array_data_bool, mlx_array) \
    SAME(const uint8_t *, mlx_array_data_uint8, mlx_array) \
    SAME(const uint16_t *, mlx_array_data_uint16, mlx_array) \
    SAME(const uint32_t *, mlx_array_data_uint32, mlx_array) \
    SAME(const uint64_t *, mlx_array_data_uint64, mlx_array) \
    SAME(const int8_t *, mlx_array_data_int8, mlx_array) \
    SAME(const int16_t *, mlx_array_data_int16, mlx_array) \
    SAME(const int32_t *, mlx_array_data_int32, mlx_array) \
    SAME(const int64_t *, mlx_array_data_int64, mlx_array) \
    SAME(const float *, mlx_array_data_float32, mlx_array) \
    SAME(const double *, mlx_array_data_float64, mlx_array) \
    SAME(const mlx_complex64_t *, mlx_array_data_complex64, mlx_array) \
    SAME(int, _mlx_array_is_available, bool *, mlx_array) \
    SAME(int, _mlx_array_wait, mlx_array) \
    SAME(int, _mlx_array_is_contiguous, bool *, mlx_array) \
    SAME(int, _mlx_array_is_row_contiguous, bool *, mlx_array) \
    SAME(int, _mlx_array_is_col_contiguous, bool *, mlx_array) \
    SAME(mlx_closure, mlx_closure_new, void) \
    SAME(int, mlx_closure_free, mlx_closure) \
    SAME(mlx_closure, mlx_closure_new_func, int ( *)(mlx_vector_array *, const mlx_vector_array)) \
    SAME(mlx_closure, mlx_closure_new_func_payload, int ( *)(mlx_vector_array *, const mlx_vector_array, void *), void *, void ( *)(void *)) \
    SAME(int, mlx_closure_set, mlx_closure *, mlx_closure) \
    SAME(int, mlx_closure_apply, mlx_vector_array *, mlx_closure, mlx_vector_array) \
    SAME(mlx_closure, mlx_closure_new_unary, int ( *)(mlx_array *, const mlx_array)) \
    SAME(mlx_closure_kwargs, mlx_closure_kwargs_new, void) \
    SAME(int, mlx_closure_kwargs_free, mlx_closure_kwargs) \
    SAME(mlx_closure_kwargs, mlx_closure_kwargs_new_func, int ( *)( mlx_vector_array *, const mlx_vector_array, const mlx_map_string_to_array)) \
    SAME(mlx_closure_kwargs, mlx_closure_kwargs_new_func_payload, int ( *)( mlx_vector_array *, const mlx_vector_array, const mlx_map_string_to_array, void *), void *, void ( *)(void *)) \
    SAME(int, mlx_closure_kwargs_set, mlx_closure_kwargs *, mlx_closure_kwargs) \
    SAME(int, mlx_closure_kwargs_apply, mlx_vector_array *, mlx_closure_kwargs, mlx_vector_array, mlx_map_string_to_array) \
    SAME(mlx_closure_value_and_grad, mlx_closure_value_and_grad_new, void) \
    SAME(int, mlx_closure_value_and_grad_free, mlx_closure_value_and_grad) \
    SAME(mlx_closure_value_and_grad, mlx_closure_value_and_grad_new_func, int ( *)(mlx_vector_array *, mlx_vector_array *, const mlx_vector_array)) \
    SAME(mlx_closure_value_and_grad, mlx_closure_value_and_grad_new_func_payload, int ( *)( mlx_vector_array *, mlx_vector_array *, const mlx_vector_array, void *), void *, void ( *)(void *)) \
    SAME(int, mlx_closure_value_and_grad_set, mlx_closure_value_and_grad *, mlx_closure_value_and_grad) \
    SAME(int, mlx_closure_value_and_grad_apply, mlx_vector_array *, mlx_vector_array *, mlx_closure_value_and_grad, mlx_vector_array) \
    SAME(mlx_closure_custom, mlx_closure_custom_new, void) \
    SAME(int, mlx_closure_custom_free, mlx_closure_custom) \
    SAME(mlx_closure_custom, mlx_closure_custom_new_func, int ( *)( mlx_vector_array *, const mlx_vector_array, const mlx_vector_array, const mlx_vector_array)) \
    SAME(mlx_closure_custom, mlx_closure_custom_new_func_payload, int ( *)( mlx_vector_array *, const mlx_vector_array, const mlx_vector_array, const mlx_vector_array, void *), void *, void ( *)(void *)) \
    SAME(int, mlx_closure_custom_set, mlx_closure_custom *, mlx_closure_custom) \
    SAME(int, mlx_closure_custom_apply, mlx_vector_array *, mlx_closure_custom, mlx_vector_array, mlx_vector_array, mlx_vector_array) \
    SAME(mlx_closure_custom_jvp, mlx_closure_custom_jvp_new, void) \
    SAME(int, mlx_closure_custom_jvp_free, mlx_closure_custom_jvp) \
    SAME(mlx_closure_custom_jvp, mlx_closure_custom_jvp_new_func, int ( *)( mlx_vector_array *, const mlx_vector_array, const mlx_vector_array, const int *, size_t _num)) \
    SAME(mlx_closure_custom_jvp, mlx_closure_custom_jvp_new_func_payload, int ( *)( mlx_vector_array *, const mlx_vector_array, const mlx_vector_array, const int *, size_t _num, void *), void *, void ( *)(void *)) \
    SAME(int, mlx_closure_custom_jvp_set, mlx_closure_custom_jvp *, mlx_closure_custom_jvp) \
    SAME(int, mlx_closure_custom_jvp_apply, mlx_vector_array *, mlx_closure_custom_jvp, mlx_vector_array, mlx_vector_array, const int *, size_t) \
    SAME(mlx_closure_custom_vmap, mlx_closure_custom_vmap_new, void) \
    SAME(int, mlx_closure_custom_vmap_free, mlx_closure_custom_vmap) \
    SAME(mlx_closure_custom_vmap, mlx_closure_custom_vmap_new_func, int ( *)( mlx_vector_array *, mlx_vector_int *, const mlx_vector_array, const int *, size_t _num)) \
    SAME(mlx_closure_custom_vmap, mlx_closure_custom_vmap_new_func_payload, int ( *)( mlx_vector_array *, mlx_vector_int *, const mlx_vector_array, const int *, size_t _num, void *), void *, void ( *)(void *)) \
    SAME(int, mlx_closure_custom_vmap_set, mlx_closure_custom_vmap *, mlx_closure_custom_vmap) \
    SAME(int, mlx_closure_custom_vmap_apply, mlx_vector_array *, mlx_vector_int *, mlx_closure_custom_vmap, mlx_vector_array, const int *, size_t) \
    SAME(int, mlx_compile, mlx_closure *, mlx_closure, bool) \
    SAME(int, mlx_detail_compile, mlx_closure *, mlx_closure, uintptr_t, bool, const uint64_t *, size_t) \
    SAME(int, mlx_detail_compile_clear_cache, void) \
    SAME(int, mlx_detail_compile_erase, uintptr_t) \
    SAME(int, mlx_disable_compile, void) \
    SAME(int, mlx_enable_compile, void) \
    SAME(int, mlx_set_compile_mode, mlx_compile_mode) \
    SAME(int, mlx_cuda_is_available, bool *) \
    SAME(mlx_device, mlx_device_new, void) \
    SAME(mlx_device, mlx_device_new_type, mlx_device_type, int) \
    SAME(int, mlx_device_free, mlx_device) \
    SAME(int, mlx_device_set, mlx_device *, mlx_device) \
    SAME(int, mlx_device_tostring, mlx_string *, mlx_device) \
    SAME(bool, mlx_device_equal, mlx_device, mlx_device) \
    SAME(int, mlx_device_get_index, int *, mlx_device) \
    SAME(int, mlx_device_get_type, mlx_device_type *, mlx_device) \
    SAME(int, mlx_get_default_device, mlx_device *) \
    SAME(int, mlx_set_default_device, mlx_device) \
    SAME(int, mlx_device_is_available, bool *, mlx_device) \
    SAME(int, mlx_device_count, int *, mlx_device_type) \
    SAME(mlx_device_info, mlx_device_info_new, void) \
    SAME(int, mlx_device_info_get, mlx_device_info *, mlx_device) \
    SAME(int, mlx_device_info_free, mlx_device_info) \
    SAME(int, mlx_device_info_has_key, bool *, mlx_device_info, const char *) \
    SAME(int, mlx_device_info_is_string, bool *, mlx_device_info, const char *) \
    SAME(int, mlx_device_info_get_string, const char **, mlx_device_info, const char *) \
    SAME(int, mlx_device_info_get_size, size_t *, mlx_device_info, const char *) \
    SAME(int, mlx_device_info_get_keys, mlx_vector_string *, mlx_device_info) \
    SAME(void, mlx_set_error_handler, mlx_error_handler_func, void *, void ( *)(void *)) \
    SAME(int, mlx_fast_layer_norm, mlx_array *, mlx_array, mlx_array, mlx_array, float, mlx_stream) \
    SAME(int, mlx_fast_rms_norm, mlx_array *, mlx_array, mlx_array, float, mlx_stream) \
    SAME(int, mlx_fast_rope, mlx_array *, mlx_array, int, bool, mlx_optional_float, float, int, mlx_array, mlx_stream) \
    SAME(int, mlx_fast_rope_dynamic, mlx_array *, mlx_array, int, bool, mlx_optional_float, float, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_fast_scaled_dot_product_attention, mlx_array *, mlx_array, mlx_array, mlx_array, float, const char *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_load_reader, mlx_array *, mlx_io_reader, mlx_stream) \
    SAME(int, mlx_load, mlx_array *, const char *, mlx_stream) \
    SAME(int, mlx_load_gguf, mlx_io_gguf *, const char *, mlx_stream) \
    SAME(int, mlx_load_safetensors_reader, mlx_map_string_to_array *, mlx_map_string_to_string *, mlx_io_reader, mlx_stream) \
    SAME(int, mlx_load_safetensors, mlx_map_string_to_array *, mlx_map_string_to_string *, const char *, mlx_stream) \
    SAME(int, mlx_save_writer, mlx_io_writer, mlx_array) \
    SAME(int, mlx_save, const char *, mlx_array) \
    SAME(int, mlx_save_gguf, const char *, mlx_io_gguf) \
    SAME(int, mlx_save_safetensors_writer, mlx_io_writer, mlx_map_string_to_array, mlx_map_string_to_string) \
    SAME(int, mlx_save_safetensors, const char *, mlx_map_string_to_array, mlx_map_string_to_string) \
    SAME(mlx_io_reader, mlx_io_reader_new, void *, mlx_io_vtable) \
    SAME(int, mlx_io_reader_descriptor, void **, mlx_io_reader) \
    SAME(int, mlx_io_reader_tostring, mlx_string *, mlx_io_reader) \
    SAME(int, mlx_io_reader_free, mlx_io_reader) \
    SAME(mlx_io_writer, mlx_io_writer_new, void *, mlx_io_vtable) \
    SAME(int, mlx_io_writer_descriptor, void **, mlx_io_writer) \
    SAME(int, mlx_io_writer_tostring, mlx_string *, mlx_io_writer) \
    SAME(int, mlx_io_writer_free, mlx_io_writer) \
    SAME(mlx_io_gguf, mlx_io_gguf_new, void) \
    SAME(int, mlx_io_gguf_free, mlx_io_gguf) \
    SAME(int, mlx_io_gguf_get_keys, mlx_vector_string *, mlx_io_gguf) \
    SAME(int, mlx_io_gguf_get_array, mlx_array *, mlx_io_gguf, const char *) \
    SAME(int, mlx_io_gguf_get_metadata_array, mlx_array *, mlx_io_gguf, const char *) \
    SAME(int, mlx_io_gguf_get_metadata_string, mlx_string *, mlx_io_gguf, const char *) \
    SAME(int, mlx_io_gguf_get_metadata_vector_string, mlx_vector_string *, mlx_io_gguf, const char *) \
    SAME(int, mlx_io_gguf_has_metadata_array, bool *, mlx_io_gguf, const char *) \
    SAME(int, mlx_io_gguf_has_metadata_string, bool *, mlx_io_gguf, const char *) \
    SAME(int, mlx_io_gguf_has_metadata_vector_string, bool *, mlx_io_gguf, const char *) \
    SAME(int, mlx_io_gguf_set_array, mlx_io_gguf, const char *, mlx_array) \
    SAME(int, mlx_io_gguf_set_metadata_array, mlx_io_gguf, const char *, mlx_array) \
    SAME(int, mlx_io_gguf_set_metadata_string, mlx_io_gguf, const char *, const char *) \
    SAME(int, mlx_io_gguf_set_metadata_vector_string, mlx_io_gguf, const char *, mlx_vector_string) \
    SAME(int, mlx_linalg_cholesky, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_linalg_cholesky_inv, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_linalg_cross, mlx_array *, mlx_array, mlx_array, int, mlx_stream) \
    SAME(int, mlx_linalg_eigh, mlx_array *, mlx_array *, mlx_array, const char *, mlx_stream) \
    SAME(int, mlx_linalg_eigvalsh, mlx_array *, mlx_array, const char *, mlx_stream) \
    SAME(int, mlx_linalg_inv, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_linalg_lu, mlx_vector_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_linalg_lu_factor, mlx_array *, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_linalg_norm, mlx_array *, mlx_array, double, const int *, size_t, bool, mlx_stream) \
    SAME(int, mlx_linalg_norm_matrix, mlx_array *, mlx_array, const char *, const int *, size_t, bool, mlx_stream) \
    SAME(int, mlx_linalg_norm_l2, mlx_array *, mlx_array, const int *, size_t, bool, mlx_stream) \
    SAME(int, mlx_linalg_pinv, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_linalg_qr, mlx_array *, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_linalg_solve, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_linalg_solve_triangular, mlx_array *, mlx_array, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_linalg_svd, mlx_vector_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_linalg_tri_inv, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(mlx_map_string_to_array, mlx_map_string_to_array_new, void) \
    SAME(int, mlx_map_string_to_array_set, mlx_map_string_to_array *, mlx_map_string_to_array) \
    SAME(int, mlx_map_string_to_array_free, mlx_map_string_to_array) \
    SAME(int, mlx_map_string_to_array_insert, mlx_map_string_to_array, const char *, mlx_array) \
    SAME(int, mlx_map_string_to_array_get, mlx_array *, mlx_map_string_to_array, const char *) \
    SAME(mlx_map_string_to_array_iterator, mlx_map_string_to_array_iterator_new, mlx_map_string_to_array) \
    SAME(int, mlx_map_string_to_array_iterator_free, mlx_map_string_to_array_iterator) \
    SAME(int, mlx_map_string_to_array_iterator_next, const char **, mlx_array *, mlx_map_string_to_array_iterator) \
    SAME(mlx_map_string_to_string, mlx_map_string_to_string_new, void) \
    SAME(int, mlx_map_string_to_string_set, mlx_map_string_to_string *, mlx_map_string_to_string) \
    SAME(int, mlx_map_string_to_string_free, mlx_map_string_to_string) \
    SAME(int, mlx_map_string_to_string_insert, mlx_map_string_to_string, const char *, const char *) \
    SAME(int, mlx_map_string_to_string_get, const char **, mlx_map_string_to_string, const char *) \
    SAME(mlx_map_string_to_string_iterator, mlx_map_string_to_string_iterator_new, mlx_map_string_to_string) \
    SAME(int, mlx_map_string_to_string_iterator_free, mlx_map_string_to_string_iterator) \
    SAME(int, mlx_map_string_to_string_iterator_next, const char **, const char **, mlx_map_string_to_string_iterator) \
    SAME(int, mlx_clear_cache, void) \
    SAME(int, mlx_get_active_memory, size_t *) \
    SAME(int, mlx_get_cache_memory, size_t *) \
    SAME(int, mlx_get_memory_limit, size_t *) \
    SAME(int, mlx_get_peak_memory, size_t *) \
    SAME(int, mlx_reset_peak_memory, void) \
    SAME(int, mlx_set_cache_limit, size_t *, size_t) \
    SAME(int, mlx_set_memory_limit, size_t *, size_t) \
    SAME(int, mlx_set_wired_limit, size_t *, size_t) \
    SAME(int, mlx_metal_is_available, bool *) \
    SAME(int, mlx_abs, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_add, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_addmm, mlx_array *, mlx_array, mlx_array, mlx_array, float, float, mlx_stream) \
    SAME(int, mlx_all_axes, mlx_array *, mlx_array, const int *, size_t, bool, mlx_stream) \
    SAME(int, mlx_all_axis, mlx_array *, mlx_array, int, bool, mlx_stream) \
    SAME(int, mlx_all, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_allclose, mlx_array *, mlx_array, mlx_array, double, double, bool, mlx_stream) \
    SAME(int, mlx_any_axes, mlx_array *, mlx_array, const int *, size_t, bool, mlx_stream) \
    SAME(int, mlx_any_axis, mlx_array *, mlx_array, int, bool, mlx_stream) \
    SAME(int, mlx_any, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_arange, mlx_array *, double, double, double, mlx_dtype, mlx_stream) \
    SAME(int, mlx_arccos, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_arccosh, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_arcsin, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_arcsinh, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_arctan, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_arctan2, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_arctanh, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_argmax_axis, mlx_array *, mlx_array, int, bool, mlx_stream) \
    SAME(int, mlx_argmax, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_argmin_axis, mlx_array *, mlx_array, int, bool, mlx_stream) \
    SAME(int, mlx_argmin, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_argpartition_axis, mlx_array *, mlx_array, int, int, mlx_stream) \
    SAME(int, mlx_argpartition, mlx_array *, mlx_array, int, mlx_stream) \
    SAME(int, mlx_argsort_axis, mlx_array *, mlx_array, int, mlx_stream) \
    SAME(int, mlx_argsort, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_array_equal, mlx_array *, mlx_array, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_as_strided, mlx_array *, mlx_array, const int *, size_t, const int64_t *, size_t, size_t, mlx_stream) \
    SAME(int, mlx_astype, mlx_array *, mlx_array, mlx_dtype, mlx_stream) \
    SAME(int, mlx_atleast_1d, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_atleast_2d, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_atleast_3d, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_bartlett, mlx_array *, int, mlx_stream) \
    SAME(int, mlx_bitwise_and, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_bitwise_invert, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_bitwise_or, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_bitwise_xor, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_blackman, mlx_array *, int, mlx_stream) \
    SAME(int, mlx_block_masked_mm, mlx_array *, mlx_array, mlx_array, int, mlx_array, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_broadcast_arrays, mlx_vector_array *, mlx_vector_array, mlx_stream) \
    SAME(int, mlx_broadcast_to, mlx_array *, mlx_array, const int *, size_t, mlx_stream) \
    SAME(int, mlx_ceil, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_clip, mlx_array *, mlx_array, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_concatenate_axis, mlx_array *, mlx_vector_array, int, mlx_stream) \
    SAME(int, mlx_concatenate, mlx_array *, mlx_vector_array, mlx_stream) \
    SAME(int, mlx_conjugate, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_contiguous, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_conv1d, mlx_array *, mlx_array, mlx_array, int, int, int, int, mlx_stream) \
    SAME(int, mlx_conv2d, mlx_array *, mlx_array, mlx_array, int, int, int, int, int, int, int, mlx_stream) \
    SAME(int, mlx_conv3d, mlx_array *, mlx_array, mlx_array, int, int, int, int, int, int, int, int, int, int, mlx_stream) \
    SAME(int, mlx_conv_general, mlx_array *, mlx_array, mlx_array, const int *, size_t, const int *, size_t, const int *, size_t, const int *, size_t, const int *, size_t, int, bool, mlx_stream) \
    SAME(int, mlx_conv_transpose1d, mlx_array *, mlx_array, mlx_array, int, int, int, int, int, mlx_stream) \
    SAME(int, mlx_conv_transpose2d, mlx_array *, mlx_array, mlx_array, int, int, int, int, int, int, int, int, int, mlx_stream) \
    SAME(int, mlx_conv_transpose3d, mlx_array *, mlx_array, mlx_array, int, int, int, int, int, int, int, int, int, int, int, int, int, mlx_stream) \
    SAME(int, mlx_copy, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_cos, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_cosh, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_cummax, mlx_array *, mlx_array, int, bool, bool, mlx_stream) \
    SAME(int, mlx_cummin, mlx_array *, mlx_array, int, bool, bool, mlx_stream) \
    SAME(int, mlx_cumprod, mlx_array *, mlx_array, int, bool, bool, mlx_stream) \
    SAME(int, mlx_cumsum, mlx_array *, mlx_array, int, bool, bool, mlx_stream) \
    SAME(int, mlx_degrees, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_depends, mlx_vector_array *, mlx_vector_array, mlx_vector_array) \
    SAME(int, mlx_dequantize, mlx_array *, mlx_array, mlx_array, mlx_array, mlx_optional_int, mlx_optional_int, const char *, mlx_array, mlx_optional_dtype, mlx_stream) \
    SAME(int, mlx_diag, mlx_array *, mlx_array, int, mlx_stream) \
    SAME(int, mlx_diagonal, mlx_array *, mlx_array, int, int, int, mlx_stream) \
    SAME(int, mlx_divide, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_divmod, mlx_vector_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_einsum, mlx_array *, const char *, mlx_vector_array, mlx_stream) \
    SAME(int, mlx_equal, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_erf, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_erfinv, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_exp, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_expand_dims_axes, mlx_array *, mlx_array, const int *, size_t, mlx_stream) \
    SAME(int, mlx_expand_dims, mlx_array *, mlx_array, int, mlx_stream) \
    SAME(int, mlx_expm1, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_eye, mlx_array *, int, int, int, mlx_dtype, mlx_stream) \
    SAME(int, mlx_flatten, mlx_array *, mlx_array, int, int, mlx_stream) \
    SAME(int, mlx_floor, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_floor_divide, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_from_fp8, mlx_array *, mlx_array, mlx_dtype, mlx_stream) \
    SAME(int, mlx_full, mlx_array *, const int *, size_t, mlx_array, mlx_dtype, mlx_stream) \
    SAME(int, mlx_full_like, mlx_array *, mlx_array, mlx_array, mlx_dtype, mlx_stream) \
    SAME(int, mlx_gather, mlx_array *, mlx_array, mlx_vector_array, const int *, size_t, const int *, size_t, mlx_stream) \
    SAME(int, mlx_gather_single, mlx_array *, mlx_array, mlx_array, int, const int *, size_t, mlx_stream) \
    SAME(int, mlx_gather_mm, mlx_array *, mlx_array, mlx_array, mlx_array, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_gather_qmm, mlx_array *, mlx_array, mlx_array, mlx_array, mlx_array, mlx_array, mlx_array, bool, mlx_optional_int, mlx_optional_int, const char *, bool, mlx_stream) \
    SAME(int, mlx_greater, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_greater_equal, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_hadamard_transform, mlx_array *, mlx_array, mlx_optional_float, mlx_stream) \
    SAME(int, mlx_hamming, mlx_array *, int, mlx_stream) \
    SAME(int, mlx_hanning, mlx_array *, int, mlx_stream) \
    SAME(int, mlx_identity, mlx_array *, int, mlx_dtype, mlx_stream) \
    SAME(int, mlx_imag, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_inner, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_isclose, mlx_array *, mlx_array, mlx_array, double, double, bool, mlx_stream) \
    SAME(int, mlx_isfinite, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_isinf, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_isnan, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_isneginf, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_isposinf, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_kron, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_left_shift, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_less, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_less_equal, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_linspace, mlx_array *, double, double, int, mlx_dtype, mlx_stream) \
    SAME(int, mlx_log, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_log10, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_log1p, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_log2, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_logaddexp, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_logcumsumexp, mlx_array *, mlx_array, int, bool, bool, mlx_stream) \
    SAME(int, mlx_logical_and, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_logical_not, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_logical_or, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_logsumexp_axes, mlx_array *, mlx_array, const int *, size_t, bool, mlx_stream) \
    SAME(int, mlx_logsumexp_axis, mlx_array *, mlx_array, int, bool, mlx_stream) \
    SAME(int, mlx_logsumexp, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_masked_scatter, mlx_array *, mlx_array, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_matmul, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_max_axes, mlx_array *, mlx_array, const int *, size_t, bool, mlx_stream) \
    SAME(int, mlx_max_axis, mlx_array *, mlx_array, int, bool, mlx_stream) \
    SAME(int, mlx_max, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_maximum, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_mean_axes, mlx_array *, mlx_array, const int *, size_t, bool, mlx_stream) \
    SAME(int, mlx_mean_axis, mlx_array *, mlx_array, int, bool, mlx_stream) \
    SAME(int, mlx_mean, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_median, mlx_array *, mlx_array, const int *, size_t, bool, mlx_stream) \
    SAME(int, mlx_meshgrid, mlx_vector_array *, mlx_vector_array, bool, const char *, mlx_stream) \
    SAME(int, mlx_min_axes, mlx_array *, mlx_array, const int *, size_t, bool, mlx_stream) \
    SAME(int, mlx_min_axis, mlx_array *, mlx_array, int, bool, mlx_stream) \
    SAME(int, mlx_min, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_minimum, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_moveaxis, mlx_array *, mlx_array, int, int, mlx_stream) \
    SAME(int, mlx_multiply, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_nan_to_num, mlx_array *, mlx_array, float, mlx_optional_float, mlx_optional_float, mlx_stream) \
    SAME(int, mlx_negative, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_not_equal, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_number_of_elements, mlx_array *, mlx_array, const int *, size_t, bool, mlx_dtype, mlx_stream) \
    SAME(int, mlx_ones, mlx_array *, const int *, size_t, mlx_dtype, mlx_stream) \
    SAME(int, mlx_ones_like, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_outer, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_pad, mlx_array *, mlx_array, const int *, size_t, const int *, size_t, const int *, size_t, mlx_array, const char *, mlx_stream) \
    SAME(int, mlx_pad_symmetric, mlx_array *, mlx_array, int, mlx_array, const char *, mlx_stream) \
    SAME(int, mlx_partition_axis, mlx_array *, mlx_array, int, int, mlx_stream) \
    SAME(int, mlx_partition, mlx_array *, mlx_array, int, mlx_stream) \
    SAME(int, mlx_power, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_prod_axes, mlx_array *, mlx_array, const int *, size_t, bool, mlx_stream) \
    SAME(int, mlx_prod_axis, mlx_array *, mlx_array, int, bool, mlx_stream) \
    SAME(int, mlx_prod, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_put_along_axis, mlx_array *, mlx_array, mlx_array, mlx_array, int, mlx_stream) \
    SAME(int, mlx_qqmm, mlx_array *, mlx_array, mlx_array, mlx_array, mlx_optional_int, mlx_optional_int, const char *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_quantize, mlx_vector_array *, mlx_array, mlx_optional_int, mlx_optional_int, const char *, mlx_array, mlx_stream) \
    SAME(int, mlx_quantized_matmul, mlx_array *, mlx_array, mlx_array, mlx_array, mlx_array, bool, mlx_optional_int, mlx_optional_int, const char *, mlx_stream) \
    SAME(int, mlx_radians, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_real, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_reciprocal, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_remainder, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_repeat_axis, mlx_array *, mlx_array, int, int, mlx_stream) \
    SAME(int, mlx_repeat, mlx_array *, mlx_array, int, mlx_stream) \
    SAME(int, mlx_reshape, mlx_array *, mlx_array, const int *, size_t, mlx_stream) \
    SAME(int, mlx_right_shift, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_roll_axis, mlx_array *, mlx_array, const int *, size_t, int, mlx_stream) \
    SAME(int, mlx_roll_axes, mlx_array *, mlx_array, const int *, size_t, const int *, size_t, mlx_stream) \
    SAME(int, mlx_roll, mlx_array *, mlx_array, const int *, size_t, mlx_stream) \
    SAME(int, mlx_round, mlx_array *, mlx_array, int, mlx_stream) \
    SAME(int, mlx_rsqrt, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_scatter, mlx_array *, mlx_array, mlx_vector_array, mlx_array, const int *, size_t, mlx_stream) \
    SAME(int, mlx_scatter_single, mlx_array *, mlx_array, mlx_array, mlx_array, int, mlx_stream) \
    SAME(int, mlx_scatter_add, mlx_array *, mlx_array, mlx_vector_array, mlx_array, const int *, size_t, mlx_stream) \
    SAME(int, mlx_scatter_add_single, mlx_array *, mlx_array, mlx_array, mlx_array, int, mlx_stream) \
    SAME(int, mlx_scatter_add_axis, mlx_array *, mlx_array, mlx_array, mlx_array, int, mlx_stream) \
    SAME(int, mlx_scatter_max, mlx_array *, mlx_array, mlx_vector_array, mlx_array, const int *, size_t, mlx_stream) \
    SAME(int, mlx_scatter_max_single, mlx_array *, mlx_array, mlx_array, mlx_array, int, mlx_stream) \
    SAME(int, mlx_scatter_min, mlx_array *, mlx_array, mlx_vector_array, mlx_array, const int *, size_t, mlx_stream) \
    SAME(int, mlx_scatter_min_single, mlx_array *, mlx_array, mlx_array, mlx_array, int, mlx_stream) \
    SAME(int, mlx_scatter_prod, mlx_array *, mlx_array, mlx_vector_array, mlx_array, const int *, size_t, mlx_stream) \
    SAME(int, mlx_scatter_prod_single, mlx_array *, mlx_array, mlx_array, mlx_array, int, mlx_stream) \
    SAME(int, mlx_segmented_mm, mlx_array *, mlx_array, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_sigmoid, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_sign, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_sin, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_sinh, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_slice, mlx_array *, mlx_array, const int *, size_t, const int *, size_t, const int *, size_t, mlx_stream) \
    SAME(int, mlx_slice_dynamic, mlx_array *, mlx_array, mlx_array, const int *, size_t, const int *, size_t, mlx_stream) \
    SAME(int, mlx_slice_update, mlx_array *, mlx_array, mlx_array, const int *, size_t, const int *, size_t, const int *, size_t, mlx_stream) \
    SAME(int, mlx_slice_update_dynamic, mlx_array *, mlx_array, mlx_array, mlx_array, const int *, size_t, mlx_stream) \
    SAME(int, mlx_slice_update_add, mlx_array *, mlx_array, mlx_array, const int *, size_t, const int *, size_t, const int *, size_t, mlx_stream) \
    SAME(int, mlx_slice_update_max, mlx_array *, mlx_array, mlx_array, const int *, size_t, const int *, size_t, const int *, size_t, mlx_stream) \
    SAME(int, mlx_slice_update_min, mlx_array *, mlx_array, mlx_array, const int *, size_t, const int *, size_t, const int *, size_t, mlx_stream) \
    SAME(int, mlx_slice_update_prod, mlx_array *, mlx_array, mlx_array, const int *, size_t, const int *, size_t, const int *, size_t, mlx_stream) \
    SAME(int, mlx_softmax_axes, mlx_array *, mlx_array, const int *, size_t, bool, mlx_stream) \
    SAME(int, mlx_softmax_axis, mlx_array *, mlx_array, int, bool, mlx_stream) \
    SAME(int, mlx_softmax, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_sort_axis, mlx_array *, mlx_array, int, mlx_stream) \
    SAME(int, mlx_sort, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_split, mlx_vector_array *, mlx_array, int, int, mlx_stream) \
    SAME(int, mlx_split_sections, mlx_vector_array *, mlx_array, const int *, size_t, int, mlx_stream) \
    SAME(int, mlx_sqrt, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_square, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_squeeze_axes, mlx_array *, mlx_array, const int *, size_t, mlx_stream) \
    SAME(int, mlx_squeeze_axis, mlx_array *, mlx_array, int, mlx_stream) \
    SAME(int, mlx_squeeze, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_stack_axis, mlx_array *, mlx_vector_array, int, mlx_stream) \
    SAME(int, mlx_stack, mlx_array *, mlx_vector_array, mlx_stream) \
    SAME(int, mlx_std_axes, mlx_array *, mlx_array, const int *, size_t, bool, int, mlx_stream) \
    SAME(int, mlx_std_axis, mlx_array *, mlx_array, int, bool, int, mlx_stream) \
    SAME(int, mlx_std, mlx_array *, mlx_array, bool, int, mlx_stream) \
    SAME(int, mlx_stop_gradient, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_subtract, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_sum_axes, mlx_array *, mlx_array, const int *, size_t, bool, mlx_stream) \
    SAME(int, mlx_sum_axis, mlx_array *, mlx_array, int, bool, mlx_stream) \
    SAME(int, mlx_sum, mlx_array *, mlx_array, bool, mlx_stream) \
    SAME(int, mlx_swapaxes, mlx_array *, mlx_array, int, int, mlx_stream) \
    SAME(int, mlx_take_axis, mlx_array *, mlx_array, mlx_array, int, mlx_stream) \
    SAME(int, mlx_take, mlx_array *, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_take_along_axis, mlx_array *, mlx_array, mlx_array, int, mlx_stream) \
    SAME(int, mlx_tan, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_tanh, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_tensordot, mlx_array *, mlx_array, mlx_array, const int *, size_t, const int *, size_t, mlx_stream) \
    SAME(int, mlx_tensordot_axis, mlx_array *, mlx_array, mlx_array, int, mlx_stream) \
    SAME(int, mlx_tile, mlx_array *, mlx_array, const int *, size_t, mlx_stream) \
    SAME(int, mlx_to_fp8, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_topk_axis, mlx_array *, mlx_array, int, int, mlx_stream) \
    SAME(int, mlx_topk, mlx_array *, mlx_array, int, mlx_stream) \
    SAME(int, mlx_trace, mlx_array *, mlx_array, int, int, int, mlx_dtype, mlx_stream) \
    SAME(int, mlx_transpose_axes, mlx_array *, mlx_array, const int *, size_t, mlx_stream) \
    SAME(int, mlx_transpose, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_tri, mlx_array *, int, int, int, mlx_dtype, mlx_stream) \
    SAME(int, mlx_tril, mlx_array *, mlx_array, int, mlx_stream) \
    SAME(int, mlx_triu, mlx_array *, mlx_array, int, mlx_stream) \
    SAME(int, mlx_unflatten, mlx_array *, mlx_array, int, const int *, size_t, mlx_stream) \
    SAME(int, mlx_var_axes, mlx_array *, mlx_array, const int *, size_t, bool, int, mlx_stream) \
    SAME(int, mlx_var_axis, mlx_array *, mlx_array, int, bool, int, mlx_stream) \
    SAME(int, mlx_var, mlx_array *, mlx_array, bool, int, mlx_stream) \
    SAME(int, mlx_view, mlx_array *, mlx_array, mlx_dtype, mlx_stream) \
    SAME(int, mlx_where, mlx_array *, mlx_array, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_zeros, mlx_array *, const int *, size_t, mlx_dtype, mlx_stream) \
    SAME(int, mlx_zeros_like, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_random_bernoulli, mlx_array *, mlx_array, const int *, size_t, mlx_array, mlx_stream) \
    SAME(int, mlx_random_bits, mlx_array *, const int *, size_t, int, mlx_array, mlx_stream) \
    SAME(int, mlx_random_categorical_shape, mlx_array *, mlx_array, int, const int *, size_t, mlx_array, mlx_stream) \
    SAME(int, mlx_random_categorical_num_samples, mlx_array *, mlx_array, int, int, mlx_array, mlx_stream) \
    SAME(int, mlx_random_categorical, mlx_array *, mlx_array, int, mlx_array, mlx_stream) \
    SAME(int, mlx_random_gumbel, mlx_array *, const int *, size_t, mlx_dtype, mlx_array, mlx_stream) \
    SAME(int, mlx_random_key, mlx_array *, uint64_t) \
    SAME(int, mlx_random_laplace, mlx_array *, const int *, size_t, mlx_dtype, float, float, mlx_array, mlx_stream) \
    SAME(int, mlx_random_multivariate_normal, mlx_array *, mlx_array, mlx_array, const int *, size_t, mlx_dtype, mlx_array, mlx_stream) \
    SAME(int, mlx_random_normal_broadcast, mlx_array *, const int *, size_t, mlx_dtype, mlx_array, mlx_array, mlx_array, mlx_stream) \
    SAME(int, mlx_random_normal, mlx_array *, const int *, size_t, mlx_dtype, float, float, mlx_array, mlx_stream) \
    SAME(int, mlx_random_permutation, mlx_array *, mlx_array, int, mlx_array, mlx_stream) \
    SAME(int, mlx_random_permutation_arange, mlx_array *, int, mlx_array, mlx_stream) \
    SAME(int, mlx_random_randint, mlx_array *, mlx_array, mlx_array, const int *, size_t, mlx_dtype, mlx_array, mlx_stream) \
    SAME(int, mlx_random_seed, uint64_t) \
    SAME(int, mlx_random_split_num, mlx_array *, mlx_array, int, mlx_stream) \
    SAME(int, mlx_random_split, mlx_array *, mlx_array *, mlx_array, mlx_stream) \
    SAME(int, mlx_random_truncated_normal, mlx_array *, mlx_array, mlx_array, const int *, size_t, mlx_dtype, mlx_array, mlx_stream) \
    SAME(int, mlx_random_uniform, mlx_array *, mlx_array, mlx_array, const int *, size_t, mlx_dtype, mlx_array, mlx_stream) \
    SAME(mlx_stream, mlx_stream_new, void) \
    SAME(mlx_stream, mlx_stream_new_device, mlx_device) \
    SAME(int, mlx_stream_set, mlx_stream *, mlx_stream) \
    SAME(int, mlx_stream_free, mlx_stream) \
    SAME(int, mlx_stream_tostring, mlx_string *, mlx_stream) \
    SAME(bool, mlx_stream_equal, mlx_stream, mlx_stream) \
    SAME(int, mlx_stream_get_device, mlx_device *, mlx_stream) \
    SAME(int, mlx_stream_get_index, int *, mlx_stream) \
    SAME(int, mlx_synchronize, mlx_stream) \
    SAME(int, mlx_get_default_stream, mlx_stream *, mlx_device) \
    SAME(int, mlx_set_default_stream, mlx_stream) \
    SAME(mlx_stream, mlx_default_cpu_stream_new, void) \
    SAME(mlx_stream, mlx_default_gpu_stream_new, void) \
    SAME(mlx_string, mlx_string_new, void) \
    SAME(mlx_string, mlx_string_new_data, const char *) \
    SAME(int, mlx_string_set, mlx_string *, mlx_string) \
    SAME(const char *, mlx_string_data, mlx_string) \
    SAME(int, mlx_string_free, mlx_string) \
    SAME(int, mlx_async_eval, mlx_vector_array) \
    SAME(int, mlx_checkpoint, mlx_closure *, mlx_closure) \
    SAME(int, mlx_custom_function, mlx_closure *, mlx_closure, mlx_closure_custom, mlx_closure_custom_jvp, mlx_closure_custom_vmap) \
    SAME(int, mlx_custom_vjp, mlx_closure *, mlx_closure, mlx_closure_custom) \
    SAME(int, mlx_eval, mlx_vector_array) \
    SAME(int, mlx_jvp, mlx_vector_array *, mlx_vector_array *, mlx_closure, mlx_vector_array, mlx_vector_array) \
    SAME(int, mlx_value_and_grad, mlx_closure_value_and_grad *, mlx_closure, const int *, size_t) \
    SAME(int, mlx_vjp, mlx_vector_array *, mlx_vector_array *, mlx_closure, mlx_vector_array, mlx_vector_array) \
    SAME(mlx_vector_array, mlx_vector_array_new, void) \
    SAME(int, mlx_vector_array_set, mlx_vector_array *, mlx_vector_array) \
    SAME(int, mlx_vector_array_free, mlx_vector_array) \
    SAME(mlx_vector_array, mlx_vector_array_new_data, const mlx_array *, size_t) \
    SAME(mlx_vector_array, mlx_vector_array_new_value, mlx_array) \
    SAME(int, mlx_vector_array_set_data, mlx_vector_array *, const mlx_array *, size_t) \
    SAME(int, mlx_vector_array_set_value, mlx_vector_array *, mlx_array) \
    SAME(int, mlx_vector_array_append_data, mlx_vector_array, const mlx_array *, size_t) \
    SAME(int, mlx_vector_array_append_value, mlx_vector_array, mlx_array) \
    SAME(size_t, mlx_vector_array_size, mlx_vector_array) \
    SAME(int, mlx_vector_array_get, mlx_array *, mlx_vector_array, size_t) \
    SAME(mlx_vector_vector_array, mlx_vector_vector_array_new, void) \
    SAME(int, mlx_vector_vector_array_set, mlx_vector_vector_array *, mlx_vector_vector_array) \
    SAME(int, mlx_vector_vector_array_free, mlx_vector_vector_array) \
    SAME(mlx_vector_vector_array, mlx_vector_vector_array_new_data, const mlx_vector_array *, size_t) \
    SAME(mlx_vector_vector_array, mlx_vector_vector_array_new_value, mlx_vector_array) \
    SAME(int, mlx_vector_vector_array_set_data, mlx_vector_vector_array *, const mlx_vector_array *, size_t) \
    SAME(int, mlx_vector_vector_array_set_value, mlx_vector_vector_array *, mlx_vector_array) \
    SAME(int, mlx_vector_vector_array_append_data, mlx_vector_vector_array, const mlx_vector_array *, size_t) \
    SAME(int, mlx_vector_vector_array_append_value, mlx_vector_vector_array, mlx_vector_array) \
    SAME(size_t, mlx_vector_vector_array_size, mlx_vector_vector_array) \
    SAME(int, mlx_vector_vector_array_get, mlx_vector_array *, mlx_vector_vector_array, size_t) \
    SAME(mlx_vector_int, mlx_vector_int_new, void) \
    SAME(int, mlx_vector_int_set, mlx_vector_int *, mlx_vector_int) \
    SAME(int, mlx_vector_int_free, mlx_vector_int) \
    SAME(mlx_vector_int, mlx_vector_int_new_data, int *, size_t) \
    SAME(mlx_vector_int, mlx_vector_int_new_value, int) \
    SAME(int, mlx_vector_int_set_data, mlx_vector_int *, int *, size_t) \
    SAME(int, mlx_vector_int_set_value, mlx_vector_int *, int) \
    SAME(int, mlx_vector_int_append_data, mlx_vector_int, int *, size_t) \
    SAME(int, mlx_vector_int_append_value, mlx_vector_int, int) \
    SAME(size_t, mlx_vector_int_size, mlx_vector_int) \
    SAME(int, mlx_vector_int_get, int *, mlx_vector_int, size_t) \
    SAME(mlx_vector_string, mlx_vector_string_new, void) \
    SAME(int, mlx_vector_string_set, mlx_vector_string *, mlx_vector_string) \
    SAME(int, mlx_vector_string_free, mlx_vector_string) \
    SAME(mlx_vector_string, mlx_vector_string_new_data, const char **, size_t) \
    SAME(mlx_vector_string, mlx_vector_string_new_value, const char *) \
    SAME(int, mlx_vector_string_set_data, mlx_vector_string *, const char **, size_t) \
    SAME(int, mlx_vector_string_set_value, mlx_vector_string *, const char *) \
    SAME(int, mlx_vector_string_append_data, mlx_vector_string, const char **, size_t) \
    SAME(int, mlx_vector_string_append_value, mlx_vector_string, const char *) \
    SAME(size_t, mlx_vector_string_size, mlx_vector_string) \
    SAME(int, mlx_vector_string_get, char **, mlx_vector_string, size_t) \
    SAME(int, mlx_version, mlx_string *)

/* clang-format on */

#define SAME(type, name, ...) static type (*const same_##name)(__VA_ARGS__) = name;
FUNCTIONS
#undef SAME

static void test_every_function_is_exported(void **state) {
    (void)state;
    size_t count = 0;
#define SAME(type, name, ...) count += same_##name != NULL;
    FUNCTIONS
#undef SAME
    assert_true(count > 400);
}

static void test_enums_have_their_values(void **state) {
    (void)state;
    assert_int_equal(MLX_BOOL, 0);
    assert_int_equal(MLX_UINT8, 1);
    assert_int_equal(MLX_UINT16, 2);
    assert_int_equal(MLX_UINT32, 3);
    assert_int_equal(MLX_UINT64, 4);
    assert_int_equal(MLX_INT8, 5);
    assert_int_equal(MLX_INT16, 6);
    assert_int_equal(MLX_INT32, 7);
    assert_int_equal(MLX_INT64, 8);
    assert_int_equal(MLX_FLOAT16, 9);
    assert_int_equal(MLX_FLOAT32, 10);
    assert_int_equal(MLX_FLOAT64, 11);
    assert_int_equal(MLX_BFLOAT16, 12);
    assert_int_equal(MLX_COMPLEX64, 13);
    assert_int_equal(MLX_CPU, 0);
    assert_int_equal(MLX_GPU, 1);
    assert_int_equal(sizeof(mlx_array), sizeof(void *));
    assert_int_equal(sizeof(mlx_map_string_to_array_iterator), 2 * sizeof(void *));
    assert_int_equal(sizeof(mlx_optional_int), 8);
    assert_int_equal(sizeof(mlx_optional_float), 8);
    assert_int_equal(sizeof(mlx_optional_dtype), 8);
}

RUN(TEST(test_every_function_is_exported), TEST(test_enums_have_their_values))
