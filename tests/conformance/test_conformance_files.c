/* Files and streams of the caller: GGUF with every kind of metadata, safetensors whose
 * header lies, arrays that go through a reader and a writer in memory. */
#include "conformance/check.h"

#include <unistd.h>

static char path[64];

static const char *temporary(const char *suffix) {
    snprintf(path, sizeof path, "/tmp/conformance-XXXXXX%s", suffix);
    const int file = mkstemps(path, (int)strlen(suffix));
    assert_true(file >= 0);
    close(file);
    return path;
}

/* ---- GGUF ---- */

static mlx_io_gguf gguf_back(mlx_io_gguf saved) {
    mlx_io_gguf back = mlx_io_gguf_new();
    if (mlx_save_gguf(temporary(".gguf"), saved)) fail_msg("%s", last_error);
    if (mlx_load_gguf(&back, path, cpu)) fail_msg("%s", last_error);
    unlink(path);
    return back;
}

static void test_gguf_keeps_arrays_of_its_types(void **state) {
    (void)state;
    const mlx_dtype kept_types[] = {MLX_INT8, MLX_INT16, MLX_INT32, MLX_FLOAT16, MLX_FLOAT32};
    const mlx_dtype others[] = {MLX_BOOL,   MLX_UINT8, MLX_UINT32,
                                MLX_UINT64, MLX_INT64, MLX_COMPLEX64};
    mlx_io_gguf gguf = mlx_io_gguf_new();
    char name[16];
    for (size_t i = 0; i < COUNT(kept_types); i++) {
        mlx_array x = OP(transpose, count_up(kept_types[i], SHAPE(2, 3)));
        snprintf(name, sizeof name, "t%zu", i);
        assert_int_equal(mlx_io_gguf_set_array(gguf, name, x), 0);
    }
    mlx_io_gguf back = gguf_back(gguf);
    mlx_vector_string keys = mlx_vector_string_new();
    assert_int_equal(mlx_io_gguf_get_keys(&keys, back), 0);
    assert_int_equal(mlx_vector_string_size(keys), COUNT(kept_types));
    for (size_t i = 0; i < COUNT(kept_types); i++) {
        mlx_array x = mlx_array_new();
        snprintf(name, sizeof name, "t%zu", i);
        must(mlx_io_gguf_get_array(&x, back, name), x);
        check_shape(x, kept_types[i], SHAPE(3, 2));
        check(x, 0, 3, 1, 4, 2, 5);
    }
    mlx_array none = mlx_array_new();
    assert_int_equal(mlx_io_gguf_get_array(&none, back, "nothing"), 2);
    assert_null(none.ctx);
    mlx_vector_string_free(keys);
    mlx_io_gguf_free(back);
    mlx_io_gguf_free(gguf);
    for (size_t i = 0; i < COUNT(others); i++) {
        mlx_io_gguf bad = mlx_io_gguf_new();
        mlx_io_gguf_set_array(bad, "t", count_up(others[i], SHAPE(5)));
        assert_int_equal(mlx_save_gguf(temporary(".gguf"), bad), 1);
        unlink(path);
        mlx_io_gguf_free(bad);
    }
}

static void test_gguf_keeps_metadata(void **state) {
    (void)state;
    mlx_io_gguf gguf = mlx_io_gguf_new();
    const char *words[] = {"data1", "data2", "data1234"};
    mlx_vector_string list = mlx_vector_string_new_data(words, 3);
    mlx_io_gguf_set_metadata_vector_string(gguf, "words", list);
    mlx_io_gguf_set_metadata_string(gguf, "word", "last");
    mlx_io_gguf_set_metadata_array(gguf, "number", scalar(MLX_FLOAT32, 2.5));
    mlx_io_gguf_set_metadata_array(gguf, "line", row(MLX_INT32, VALUES(1, 2, 3)));
    mlx_io_gguf_set_metadata_array(gguf, "one", row(MLX_FLOAT32, VALUES(1)));
    mlx_io_gguf_set_metadata_string(gguf, "word", "not this"); /* the first stays */
    mlx_io_gguf back = gguf_back(gguf);
    mlx_array number = mlx_array_new(), line = mlx_array_new(), one = mlx_array_new();
    must(mlx_io_gguf_get_metadata_array(&number, back, "number"), number);
    must(mlx_io_gguf_get_metadata_array(&line, back, "line"), line);
    must(mlx_io_gguf_get_metadata_array(&one, back, "one"), one);
    check_shape(number, MLX_FLOAT32, NULL, 0);
    check(number, 2.5);
    check_shape(line, MLX_INT32, SHAPE(3));
    check(line, 1, 2, 3);
    check_shape(one, MLX_FLOAT32, SHAPE(1));
    mlx_string word = mlx_string_new();
    assert_int_equal(mlx_io_gguf_get_metadata_string(&word, back, "word"), 0);
    assert_string_equal(mlx_string_data(word), "last");
    mlx_vector_string found = mlx_vector_string_new();
    assert_int_equal(mlx_io_gguf_get_metadata_vector_string(&found, back, "words"), 0);
    assert_int_equal(mlx_vector_string_size(found), 3);
    char *text;
    mlx_vector_string_get(&text, found, 2);
    assert_string_equal(text, "data1234");
    bool flag = false;
    assert_int_equal(mlx_io_gguf_has_metadata_string(&flag, back, "word"), 0);
    assert_true(flag);
    assert_int_equal(mlx_io_gguf_has_metadata_string(&flag, back, "line"), 0);
    assert_false(flag);
    assert_int_equal(mlx_io_gguf_has_metadata_array(&flag, back, "nothing"), 2);
    assert_int_equal(mlx_io_gguf_get_metadata_string(&word, back, "line"), 3);
    assert_int_equal(mlx_io_gguf_get_metadata_string(&word, back, "nothing"), 2);
    assert_string_equal(mlx_string_data(word), "last");
    mlx_string_free(word);
    mlx_vector_string_free(found);
    mlx_vector_string_free(list);
    mlx_io_gguf_free(back);
    mlx_io_gguf_free(gguf);
}

static void test_gguf_refuses_metadata_that_it_has_no_form_for(void **state) {
    (void)state;
    const mlx_array bad[] = {OP(ones, LIST(1, 1), MLX_FLOAT32), empty(MLX_FLOAT32, SHAPE(0)),
                             scalar(MLX_FLOAT16, 1)};
    for (size_t i = 0; i < COUNT(bad); i++) {
        mlx_io_gguf gguf = mlx_io_gguf_new();
        mlx_io_gguf_set_metadata_array(gguf, "m", bad[i]);
        assert_int_equal(mlx_save_gguf(temporary(".gguf"), gguf), 1);
        unlink(path);
        mlx_io_gguf_free(gguf);
    }
    mlx_io_gguf none = mlx_io_gguf_new();
    assert_int_equal(mlx_load_gguf(&none, "/nonexistent.gguf", cpu), 1);
    mlx_io_gguf_free(none);
}

/* ---- safetensors ---- */

static int load_raw(const char *header, size_t data) {
    const uint64_t length = strlen(header);
    FILE *file = fopen(temporary(".safetensors"), "wb");
    fwrite(&length, 8, 1, file);
    fwrite(header, 1, (size_t)length, file);
    for (size_t i = 0; i < data; i++) fputc(0, file);
    fclose(file);
    mlx_map_string_to_array arrays = mlx_map_string_to_array_new();
    mlx_map_string_to_string texts = mlx_map_string_to_string_new();
    const int status = mlx_load_safetensors(&arrays, &texts, path, cpu);
    mlx_map_string_to_array_free(arrays);
    mlx_map_string_to_string_free(texts);
    unlink(path);
    return status;
}

static void test_safetensors_headers_must_fit_the_file(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        int status;
    } cases[] = {
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, 0},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1000,1000],\"data_offsets\":[0,4000000]}}", 4, 1},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[100,0]}}", 200, 1},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[10,10],\"data_offsets\":[0,4]}}", 400, 1},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, 1},
        {"{\"t\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, 1},
        {"[1, 2]", 4, 1},
        {"{\"t\":", 4, 1},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        if (load_raw(cases[i].header, cases[i].data) != cases[i].status)
            fail_msg("%s does not give %d", cases[i].header, cases[i].status);
}

/* ---- a stream in memory ---- */

typedef struct Memory {
    char bytes[4096];
    size_t at, size;
    int freed;
} Memory;

static bool memory_open(void *desc) {
    (void)desc;
    return true;
}
static size_t memory_tell(void *desc) {
    return ((Memory *)desc)->at;
}
static void memory_seek(void *desc, int64_t off, int whence) {
    Memory *memory = desc;
    const size_t from = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? memory->at : memory->size;
    memory->at = (size_t)((int64_t)from + off);
}
static void memory_read_at(void *desc, char *data, size_t n, size_t off) {
    const Memory *memory = desc;
    assert_true(off + n <= memory->size);
    memcpy(data, memory->bytes + off, n);
}
static void memory_read(void *desc, char *data, size_t n) {
    Memory *memory = desc;
    memory_read_at(desc, data, n, memory->at);
    memory->at += n;
}
static void memory_write(void *desc, const char *data, size_t n) {
    Memory *memory = desc;
    assert_true(memory->at + n <= sizeof memory->bytes);
    memcpy(memory->bytes + memory->at, data, n);
    memory->at += n;
    if (memory->at > memory->size) memory->size = memory->at;
}
static const char *memory_label(void *desc) {
    (void)desc;
    return "a stream in memory";
}
static void memory_free(void *desc) {
    ((Memory *)desc)->freed++;
}
static const mlx_io_vtable memory_calls = {memory_open,  memory_open,  memory_tell,
                                           memory_seek,  memory_read,  memory_read_at,
                                           memory_write, memory_label, memory_free};

static void test_arrays_pass_through_streams_of_the_caller(void **state) {
    (void)state;
    static Memory npy, tensors;
    mlx_array x = OP(transpose, count_up(MLX_FLOAT32, SHAPE(2, 3))), back = mlx_array_new();
    mlx_io_writer writer = mlx_io_writer_new(&npy, memory_calls);
    assert_int_equal(mlx_save_writer(writer, x), 0);
    mlx_io_writer_free(writer);
    assert_int_equal(npy.freed, 1);
    npy.at = 0;
    mlx_io_reader reader = mlx_io_reader_new(&npy, memory_calls);
    void *desc = NULL;
    assert_int_equal(mlx_io_reader_descriptor(&desc, reader), 0);
    assert_ptr_equal(desc, &npy);
    assert_int_equal(mlx_load_reader(&back, reader, cpu), 0);
    mlx_io_reader_free(reader); /* before the array is evaluated */
    check(keep(back), 0, 3, 1, 4, 2, 5);
    assert_int_equal(npy.freed, 2);

    mlx_map_string_to_array arrays = mlx_map_string_to_array_new(),
                            found = mlx_map_string_to_array_new();
    mlx_map_string_to_string texts = mlx_map_string_to_string_new(),
                             notes = mlx_map_string_to_string_new();
    mlx_map_string_to_array_insert(arrays, "x", x);
    mlx_map_string_to_string_insert(texts, "who", "me");
    writer = mlx_io_writer_new(&tensors, memory_calls);
    assert_int_equal(mlx_save_safetensors_writer(writer, arrays, texts), 0);
    mlx_io_writer_free(writer);
    tensors.at = 0;
    reader = mlx_io_reader_new(&tensors, memory_calls);
    assert_int_equal(mlx_load_safetensors_reader(&found, &notes, reader, cpu), 0);
    mlx_io_reader_free(reader);
    mlx_array y = mlx_array_new();
    const char *note;
    must(mlx_map_string_to_array_get(&y, found, "x"), y);
    assert_int_equal(mlx_map_string_to_string_get(&note, notes, "who"), 0);
    assert_string_equal(note, "me");
    mlx_map_string_to_array_free(found);
    check_shape(y, MLX_FLOAT32, SHAPE(3, 2));
    check(y, 0, 3, 1, 4, 2, 5);
    mlx_map_string_to_array_free(arrays);
    mlx_map_string_to_string_free(texts);
    mlx_map_string_to_string_free(notes);
    assert_int_equal(tensors.freed, 2);
}

RUN(TEST(test_gguf_keeps_arrays_of_its_types), TEST(test_gguf_keeps_metadata),
    TEST(test_gguf_refuses_metadata_that_it_has_no_form_for),
    TEST(test_safetensors_headers_must_fit_the_file),
    TEST(test_arrays_pass_through_streams_of_the_caller))
