/* Readers and writers of the caller: what is called and when, laziness, errors. */
#include "engine/io_check.h"

#include "engine/core/engine.h"

/* A stream over memory, as a caller would write one. */
typedef struct Memory {
    char bytes[4096];
    size_t at, length, limit; /* limit: the most it holds */
    bool failed, closed;
    int reads, frees;
} Memory;

static bool memory_is_open(void *desc) {
    return !((Memory *)desc)->closed;
}
static bool memory_good(void *desc) {
    return !((Memory *)desc)->failed;
}
static size_t memory_tell(void *desc) {
    return ((Memory *)desc)->at;
}
static void memory_seek(void *desc, int64_t off, int whence) {
    Memory *memory = desc;
    const size_t from = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? memory->at : memory->length;
    memory->at = from + (size_t)off;
    memory->failed |= memory->at > memory->length;
}
static void memory_read_at_offset(void *desc, char *data, size_t n, size_t off) {
    Memory *memory = desc;
    memory->reads++;
    if (off > memory->length || n > memory->length - off) {
        memory->failed = true;
        return;
    }
    memcpy(data, memory->bytes + off, n);
}
static void memory_read(void *desc, char *data, size_t n) {
    Memory *memory = desc;
    memory_read_at_offset(desc, data, n, memory->at);
    memory->at += n;
}
static void memory_write(void *desc, const char *data, size_t n) {
    Memory *memory = desc;
    if (n > memory->limit - memory->at) {
        memory->failed = true;
        return;
    }
    memcpy(memory->bytes + memory->at, data, n);
    memory->at += n;
    memory->length = BASE_MAX(memory->length, memory->at);
}
static const char *memory_label(void *desc) {
    (void)desc;
    return "<memory>";
}
static void memory_free(void *desc) {
    ((Memory *)desc)->frees++;
}

static const mlx_io_vtable table = {memory_is_open, memory_good,  memory_tell,
                                    memory_seek,    memory_read,  memory_read_at_offset,
                                    memory_write,   memory_label, memory_free};

static void rewind_memory(Memory *memory) {
    memory->at = 0;
    memory->reads = memory->frees = 0;
}

static int save_array(Memory *memory, mlx_array a) {
    mlx_io_writer writer = mlx_io_writer_new(memory, table);
    const int status = mlx_save_writer(writer, a);
    mlx_io_writer_free(writer);
    return status;
}

static int load_array(mlx_array *res, Memory *memory) {
    mlx_io_reader reader = mlx_io_reader_new(memory, table);
    const int status = mlx_load_reader(res, reader, cpu);
    mlx_io_reader_free(reader);
    return status;
}

static void test_a_stream_knows_its_descriptor_and_label(void **state) {
    (void)state;
    Memory memory = {0};
    void *descriptor = NULL;
    mlx_string text = mlx_string_new();
    mlx_io_reader reader = mlx_io_reader_new(&memory, table);
    mlx_io_writer writer = mlx_io_writer_new(&memory, table);
    assert_int_equal(mlx_io_reader_descriptor(&descriptor, reader), 0);
    assert_ptr_equal(descriptor, &memory);
    assert_int_equal(mlx_io_reader_tostring(&text, reader), 0);
    assert_string_equal(mlx_string_data(text), "<memory>");
    descriptor = NULL;
    assert_int_equal(mlx_io_writer_descriptor(&descriptor, writer), 0);
    assert_ptr_equal(descriptor, &memory);
    assert_int_equal(mlx_io_writer_tostring(&text, writer), 0);
    mlx_io_reader_free(reader);
    mlx_io_writer_free(writer);
    assert_int_equal(memory.frees, 2);
    mlx_string_free(text);
}

static void test_npy_is_read_when_it_is_evaluated(void **state) {
    (void)state;
    Memory memory = {.limit = sizeof memory.bytes};
    mlx_array a = floats((float[]){1, 2, 3, 4, 5, 6}, INTS(2, 3), 2), b = mlx_array_new();
    assert_int_equal(save_array(&memory, a), 0);
    rewind_memory(&memory);
    assert_int_equal(load_array(&b, &memory), 0);
    assert_int_equal(memory.reads, 3);
    assert_int_equal(memory.frees, 0); /* the array holds the stream */
    bool available = true;
    _mlx_array_is_available(&available, b);
    assert_false(available);
    assert_text(b, "array([[1, 2, 3],\n       [4, 5, 6]], dtype=float32)");
    assert_int_equal(memory.reads, 4);
    assert_int_equal(memory.frees, 1);
    mlx_array_free(a);
    mlx_array_free(b);
}

static void test_an_array_that_is_never_evaluated_frees_its_stream(void **state) {
    (void)state;
    Memory memory = {.limit = sizeof memory.bytes};
    mlx_array a = mlx_array_new_int(7), b = mlx_array_new();
    assert_int_equal(save_array(&memory, a), 0);
    rewind_memory(&memory);
    assert_int_equal(load_array(&b, &memory), 0);
    mlx_array_free(b);
    assert_int_equal(memory.frees, 1);
    mlx_array_free(a);
}

static void load_bytes(Memory *memory, const char *path) {
    char *bytes;
    size_t length;
    read_bytes(path, &bytes, &length);
    assert_in_range(length, 1, sizeof memory->bytes);
    memcpy(memory->bytes, bytes, length);
    memory->length = length;
    free(bytes);
}

static void test_column_major_and_big_endian_streams(void **state) {
    (void)state;
    Memory memory = {0};
    mlx_array a = mlx_array_new();
    load_bytes(&memory, GOLDEN "/engine/columns.npy");
    assert_int_equal(load_array(&a, &memory), 0);
    assert_text(a, "array([[0, 2, 4],\n       [1, 3, 5]], dtype=float32)");
    rewind_memory(&memory);
    load_bytes(&memory, GOLDEN "/engine/big_endian.npy");
    assert_int_equal(load_array(&a, &memory), 0);
    assert_text(a, "array([[0, 1, 2],\n       [3, 4, 5]], dtype=int32)");
    mlx_array_free(a);
}

static void test_a_short_npy_stream_fails_at_the_header_or_at_evaluation(void **state) {
    (void)state;
    Memory whole = {.limit = sizeof whole.bytes};
    mlx_array a = floats((float[]){1, 2, 3}, INTS(3), 1);
    assert_int_equal(save_array(&whole, a), 0);
    for (size_t keep = 0; keep < whole.length; keep++) {
        mlx_array b = mlx_array_new();
        Memory cut = whole;
        rewind_memory(&cut);
        cut.length = keep;
        if (load_array(&b, &cut) == 0)
            assert_fails(mlx_array_eval(b), "Unable to read 12 bytes");
        else
            assert_true(keep < 128);
        mlx_array_free(b);
    }
    mlx_array_free(a);
}

static void test_a_writer_that_fails_is_an_error(void **state) {
    (void)state;
    mlx_array a = floats((float[]){1, 2, 3}, INTS(3), 1);
    for (size_t limit = 0; limit < 140; limit += 10) {
        Memory memory = {.limit = limit};
        assert_fails(save_array(&memory, a), "<memory>");
    }
    Memory closed = {.limit = sizeof closed.bytes, .closed = true};
    assert_fails(save_array(&closed, a), "Failed to open <memory>");
    mlx_array b = mlx_array_new();
    assert_fails(load_array(&b, &closed), "Failed to open <memory>");
    mlx_array_set_data(&a, "", INTS(0), 1, MLX_UINT8);
    assert_fails(save_array(&closed, a), "empty array");
    mlx_array_free(a);
}

static void test_strided_arrays_are_written_row_major(void **state) {
    (void)state;
    Memory memory = {.limit = sizeof memory.bytes};
    const int16_t values[6] = {0, 1, 2, 3, 4, 5};
    Node *whole = node_from_data(values, MLX_INT16, INTS(6), 1);
    Node *odd = node_from_data(NULL, MLX_INT16, INTS(3), 1);
    buffer_release(odd->buffer);
    node_share(odd, whole, (int64_t[]){-2}, 5);
    mlx_array a = mlx_array_new();
    op_finish(&a, odd);
    node_release(whole);
    assert_int_equal(save_array(&memory, a), 0);
    rewind_memory(&memory);
    assert_int_equal(load_array(&a, &memory), 0);
    assert_text(a, "array([5, 3, 1], dtype=int16)");
    mlx_array_free(a);
}

typedef struct Tensors {
    mlx_map_string_to_array arrays;
    mlx_map_string_to_string metadata;
} Tensors;

static Tensors tensors_new(void) {
    return (Tensors){mlx_map_string_to_array_new(), mlx_map_string_to_string_new()};
}

static void tensors_free(Tensors tensors) {
    mlx_map_string_to_array_free(tensors.arrays);
    mlx_map_string_to_string_free(tensors.metadata);
}

static int load_tensors(Tensors *tensors, Memory *memory) {
    mlx_io_reader reader = mlx_io_reader_new(memory, table);
    const int status =
        mlx_load_safetensors_reader(&tensors->arrays, &tensors->metadata, reader, cpu);
    mlx_io_reader_free(reader);
    return status;
}

static void write_two_tensors(Memory *memory) {
    Tensors out = tensors_new();
    mlx_array one = floats((float[]){1, 2, 3}, INTS(3), 1), two = mlx_array_new_bool(true);
    mlx_map_string_to_array_insert(out.arrays, "one", one);
    mlx_map_string_to_array_insert(out.arrays, "two", two);
    mlx_map_string_to_string_insert(out.metadata, "format", "mlx");
    mlx_io_writer writer = mlx_io_writer_new(memory, table);
    assert_int_equal(mlx_save_safetensors_writer(writer, out.arrays, out.metadata), 0);
    mlx_io_writer_free(writer);
    mlx_array_free(one);
    mlx_array_free(two);
    tensors_free(out);
    rewind_memory(memory);
}

static void test_safetensors_are_read_tensor_by_tensor(void **state) {
    (void)state;
    Memory memory = {.limit = sizeof memory.bytes};
    write_two_tensors(&memory);
    Tensors in = tensors_new();
    assert_int_equal(load_tensors(&in, &memory), 0);
    assert_int_equal(memory.reads, 2); /* length and header */
    mlx_array array = mlx_array_new();
    assert_int_equal(mlx_map_string_to_array_get(&array, in.arrays, "one"), 0);
    assert_text(array, "array([1, 2, 3], dtype=float32)");
    assert_int_equal(memory.reads, 3);
    assert_int_equal(mlx_map_string_to_array_get(&array, in.arrays, "two"), 0);
    const char *format;
    assert_int_equal(mlx_map_string_to_string_get(&format, in.metadata, "format"), 0);
    assert_string_equal(format, "mlx");
    tensors_free(in);
    assert_int_equal(memory.frees, 0);
    assert_text(array, "array(true, dtype=bool)");
    assert_int_equal(memory.frees, 1);
    mlx_array_free(array);
}

static void test_a_short_or_flipped_safetensors_stream_is_an_error(void **state) {
    (void)state;
    Memory whole = {.limit = sizeof whole.bytes};
    write_two_tensors(&whole);
    Tensors in = tensors_new();
    for (size_t keep = 0; keep < whole.length; keep++) {
        Memory cut = whole;
        cut.length = keep;
        assert_fails(load_tensors(&in, &cut), "[load_safetensors] <memory>");
    }
    tensors_free(in);
    for (size_t at = 0; at < whole.length; at++) {
        Memory flipped = whole;
        flipped.bytes[at] ^= 0x10;
        in = tensors_new();
        const int status = load_tensors(&in, &flipped);
        assert_true(status == 0 || status == 1);
        tensors_free(in);
    }
}

static void test_tables_without_functions_and_null_handles_are_errors(void **state) {
    (void)state;
    Memory memory = {.limit = sizeof memory.bytes};
    mlx_io_vtable bare = {.is_open = memory_is_open, .good = memory_good, .read = memory_read};
    mlx_io_reader reader = mlx_io_reader_new(&memory, bare);
    mlx_io_writer writer = mlx_io_writer_new(&memory, bare);
    mlx_array a = mlx_array_new_int(1), b = mlx_array_new();
    assert_fails(mlx_load_reader(&b, reader, cpu), "an unnamed stream lacks functions");
    assert_fails(mlx_save_writer(writer, a), "lacks functions that writing needs");
    assert_fails(mlx_load_reader(&b, (mlx_io_reader){NULL}, cpu), "mlx_io_reader");
    assert_fails(mlx_load_reader(&b, reader, mlx_stream_new()), "mlx_stream");
    assert_fails(mlx_save_writer((mlx_io_writer){NULL}, a), "mlx_io_writer");
    assert_fails(mlx_save_writer(writer, b), "mlx_array");
    mlx_string text = mlx_string_new();
    void *descriptor;
    assert_fails(mlx_io_reader_tostring(&text, (mlx_io_reader){NULL}), "mlx_io_reader");
    assert_fails(mlx_io_writer_descriptor(&descriptor, (mlx_io_writer){NULL}), "mlx_io_writer");
    assert_null(b.ctx);
    assert_int_equal(mlx_io_reader_free((mlx_io_reader){NULL}), 0);
    assert_int_equal(mlx_io_writer_free((mlx_io_writer){NULL}), 0);
    mlx_io_reader_free(reader);
    mlx_io_writer_free(writer);
    mlx_array_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stream_knows_its_descriptor_and_label),
        cmocka_unit_test(test_npy_is_read_when_it_is_evaluated),
        cmocka_unit_test(test_an_array_that_is_never_evaluated_frees_its_stream),
        cmocka_unit_test(test_column_major_and_big_endian_streams),
        cmocka_unit_test(test_a_short_npy_stream_fails_at_the_header_or_at_evaluation),
        cmocka_unit_test(test_a_writer_that_fails_is_an_error),
        cmocka_unit_test(test_strided_arrays_are_written_row_major),
        cmocka_unit_test(test_safetensors_are_read_tensor_by_tensor),
        cmocka_unit_test(test_a_short_or_flipped_safetensors_stream_is_an_error),
        cmocka_unit_test(test_tables_without_functions_and_null_handles_are_errors),
    };
    return cmocka_run_group_tests(tests, io_setup, io_teardown);
}
