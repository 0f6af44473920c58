/* Records to tokens and targets, rows to batches. Expected orders and widths are
 * those of mlx_lm.lora 0.31.3 (iterate_batches) and numpy 2. */
#include "tune/toy_model.h"

#include "mx/mx.h"
#include "tune/batch.h"

static TuneData *open_data(const char *folder, TuneDataOptions options, LmModel *model) {
    Error err = {0};
    TuneSource source = {.path = folder};
    if (!options.sources) {
        options.sources = &source;
        options.n_sources = 1;
    }
    options.quiet = true;
    TuneData *data = tune_data_open(&options, model, &err);
    if (!data) fail_msg("%s", err.message);
    return data;
}

static void assert_row(TuneData *data, size_t index, const char *expected) {
    Error err = {0};
    TuneRow row;
    StrBuf text = {0};
    if (!tune_data_row(data, index, false, &row, &err)) fail_msg("%s", err.message);
    for (int i = 0; i < row.length; i++) base_str_appendf(&text, "%s%d", i ? " " : "", row.ids[i]);
    base_str_append(&text, " |");
    for (int i = 0; i < row.n_targets; i++)
        base_str_appendf(&text, " %d-%d", row.targets[2 * i], row.targets[2 * i + 1]);
    assert_string_equal(text.data, expected);
    base_str_free(&text);
}

static void assert_open_fails(const char *path, TuneDataOptions options, LmModel *model,
                              const char *message) {
    Error err = {0};
    TuneSource source = {.path = path};
    options.sources = &source;
    options.n_sources = 1;
    options.quiet = true;
    assert_null(tune_data_open(&options, model, &err));
    if (!strstr(err.message, message)) fail_msg("said: %s", err.message);
}

/* ---- forms ------------------------------------------------------------------------------ */

static void test_text_gets_bos_from_the_tokenizer_and_one_end_token(void **state) {
    LmModel *model = toy_open(*state);
    folder_text(*state, "train.jsonl", "{\"text\":\"ab\"}\n{\"text\":\"ab</s>\"}\n");
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "train"}, model);
    assert_int_equal(tune_data_count(data), 2);
    assert_row(data, 0, "1 8 9 2 | 0-4");
    assert_row(data, 1, "1 8 9 2 | 0-4");
    tune_data_free(data);
    assert_open_fails(*state, (TuneDataOptions){.split = "train", .mask_prompt = true}, model,
                      "Prompt masking not supported for text dataset.");
    lm_model_close(model);
}

static void test_completion_masks_what_the_generation_prompt_takes(void **state) {
    LmModel *model = toy_open(*state);
    folder_text(*state, "train.jsonl", "{\"prompt\":\"ab\",\"completion\":\"c\",\"tools\":[{}]}\n");
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "train"}, model);
    assert_row(data, 0, "6 3 8 9 5 4 10 5 | 0-8");
    tune_data_free(data);
    data = open_data(*state, (TuneDataOptions){.split = "train", .mask_prompt = true}, model);
    assert_row(data, 0, "6 3 8 9 5 4 10 5 | 6-8");
    tune_data_free(data);
    lm_model_close(model);
}

static void test_chat_counts_the_last_message_or_every_turn(void **state) {
    LmModel *model = toy_open(*state);
    folder_text(
        *state, "train.jsonl",
        "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},"
        "{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"bb\"},"
        "{\"role\":\"user\",\"content\":\"c\"},{\"role\":\"assistant\",\"content\":\"d\"}]}\n"
        "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"},"
        "{\"role\":\"user\",\"content\":\"b\"}]}\n");
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "train"}, model);
    assert_row(data, 0, "6 26 5 3 8 5 4 9 9 5 3 10 5 4 11 5 | 0-16");
    tune_data_free(data);
    data = open_data(*state, (TuneDataOptions){.split = "train", .mask_prompt = true}, model);
    assert_row(data, 0, "6 26 5 3 8 5 4 9 9 5 3 10 5 4 11 5 | 14-16");
    assert_row(data, 1, "4 8 5 3 9 5 | 3-6");
    tune_data_free(data);
    data = open_data(*state, (TuneDataOptions){.split = "train", .every_turn = true}, model);
    assert_row(data, 0, "6 26 5 3 8 5 4 9 9 5 3 10 5 4 11 5 | 7-10 14-16");
    assert_row(data, 1, "4 8 5 3 9 5 | 0-3");
    tune_data_free(data);
    lm_model_close(model);
}

static void test_tokens_are_taken_as_they_are(void **state) {
    folder_text(*state, "train.jsonl",
                "{\"tokens\":[7,8,9],\"prompt_tokens\":2}\n\n{\"tokens\":[5,6]}\n");
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "train"}, NULL);
    assert_int_equal(tune_data_count(data), 2);
    assert_row(data, 0, "7 8 9 | 2-3");
    assert_row(data, 1, "5 6 | 0-2");
    tune_data_free(data);
}

static void test_features_have_names_of_their_own_and_sources_follow_each_other(void **state) {
    LmModel *model = toy_open(*state);
    char *one = base_path_join(*state, "one"), *two = base_path_join(*state, "two");
    char *shards = base_path_join(two, "data");
    assert_true(base_make_dirs(one, NULL) && base_make_dirs(shards, NULL));
    folder_text(one, "train.jsonl", "{\"q\":\"a\",\"r\":\"b\"}\n");
    folder_text(shards, "train-00001-of-00002.jsonl", "{\"t\":\"c\"}\n{\"t\":\"d\"}\n");
    folder_text(shards, "train-00000-of-00002.jsonl", "{\"t\":\"a\"}\n{\"t\":\"b\"}\n");
    TuneSource sources[] = {{.path = one, .prompt_feature = "q", .completion_feature = "r"},
                            {.path = two, .text_feature = "t", .split = "train[:50%]"},
                            {.path = two, .text_feature = "t", .split = "train[-1:]"}};
    TuneData *data = open_data(
        NULL, (TuneDataOptions){.sources = sources, .n_sources = 3, .split = "train"}, model);
    assert_int_equal(tune_data_count(data), 4);
    assert_row(data, 0, "3 8 5 4 9 5 | 0-6");
    assert_row(data, 2, "1 9 2 | 0-3");
    assert_row(data, 3, "1 11 2 | 0-3");
    char *where = tune_data_where(data, 3);
    assert_non_null(strstr(where, "train-00001-of-00002.jsonl: line 2"));
    free(where);
    tune_data_free(data);
    free(one);
    free(two);
    free(shards);
    lm_model_close(model);
}

static void test_a_missing_split_is_empty_and_a_missing_folder_is_an_error(void **state) {
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "valid"}, NULL);
    assert_int_equal(tune_data_count(data), 0);
    tune_data_free(data);
    folder_text(*state, "valid.jsonl", "\n");
    data = open_data(*state, (TuneDataOptions){.split = "valid"}, NULL);
    assert_int_equal(tune_data_count(data), 0);
    tune_data_free(data);
    assert_open_fails("/nonexistent/set", (TuneDataOptions){0}, NULL,
                      "/nonexistent/set: no such data set");
}

static void test_bad_records_are_located(void **state) {
    LmModel *model = toy_open(*state);
    Error err = {0};
    TuneRow row;
    folder_text(*state, "train.jsonl",
                "{\"text\":\"a\"}\n{\"text\":3}\n{\"other\":1}\n{\"text\":\n{\"text\":\"b\"}\n");
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "train"}, model);
    assert_false(tune_data_row(data, 1, false, &row, &err));
    assert_non_null(strstr(err.message, "train.jsonl: line 2: tokens: \"text\" is not a text"));
    base_error_clear(&err);
    assert_false(tune_data_row(data, 2, false, &row, &err));
    assert_non_null(strstr(err.message, "line 3: tokens: there is no \"text\""));
    base_error_clear(&err);
    assert_false(tune_data_row(data, 3, false, &row, &err));
    assert_non_null(strstr(err.message, "train.jsonl: line 4"));
    base_error_clear(&err);
    assert_false(tune_data_tokenise(data, &err));
    assert_non_null(strstr(err.message, "train.jsonl: line 2"));
    tune_data_free(data);
    folder_text(*state, "train.jsonl", "{\"what\":1}\n");
    assert_open_fails(*state, (TuneDataOptions){.split = "train"}, model,
                      "records of no known form");
    folder_text(*state, "train.jsonl", "[1]\n");
    assert_open_fails(*state, (TuneDataOptions){.split = "train"}, model,
                      "line 1: the line is not a JSON object");
    folder_text(*state, "train.jsonl", "{\"tokens\":[1,160]}\n");
    data = open_data(*state, (TuneDataOptions){.split = "train"}, model);
    base_error_clear(&err);
    assert_false(tune_data_row(data, 0, false, &row, &err));
    assert_non_null(strstr(err.message, "tokens[1] is not an id of 0 to 159"));
    tune_data_free(data);
    lm_model_close(model);
}

/* ---- batches ----------------------------------------------------------------------------- */

/* Rows of the given lengths, each holding its number, as a file of tokens. */
static void write_lengths(const char *folder, const int *lengths, size_t count) {
    StrBuf text = {0};
    for (size_t i = 0; i < count; i++) {
        base_str_append(&text, "{\"tokens\":[");
        for (int j = 0; j < lengths[i]; j++) base_str_appendf(&text, "%s%zu", j ? "," : "", i);
        base_str_append(&text, "]}\n");
    }
    folder_write(folder, "train.jsonl", text.data, text.length);
    base_str_free(&text);
}

static TuneBatches *open_batches(TuneData *data, TuneBatchOptions options) {
    Error err = {0};
    TuneBatches *batches = tune_batches_new(data, &options, &err);
    if (!batches) fail_msg("%s", err.message);
    return batches;
}

static TuneBatch next_batch(TuneBatches *batches) {
    Error err = {0};
    TuneBatch batch;
    if (tune_batches_next(batches, &batch, &err) != 1) fail_msg("no batch: %s", err.message);
    return batch;
}

/* The first ids of the next batch's rows: "4 5 6 7". */
static char *next_rows(TuneBatches *batches) {
    TuneBatch batch = next_batch(batches);
    StrBuf text = {0};
    for (int r = 0; r < batch.rows; r++)
        base_str_appendf(&text, "%s%d", r ? " " : "", batch.ids[r * batch.width]);
    tune_batch_free(&batch);
    return base_str_detach(&text);
}

static void assert_next_rows(TuneBatches *batches, const char *expected) {
    char *rows = next_rows(batches);
    assert_string_equal(rows, expected);
    free(rows);
}

static void test_compat_groups_are_consecutive_and_the_tail_is_never_used(void **state) {
    MersenneTwister random;
    base_mersenne_numpy(&random, 0);
    write_lengths(*state, (int[]){1, 2, 3, 4, 5, 6, 7, 8, 9, 9}, 10);
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "train"}, NULL);
    TuneBatches *batches = open_batches(data, (TuneBatchOptions){.batch_size = 4,
                                                                 .max_seq_length = 2048,
                                                                 .order = TUNE_ORDER_COMPAT,
                                                                 .random = &random});
    assert_int_equal(tune_batches_per_epoch(batches), 2);
    /* np.random.seed(0): permutation(2) is 1 0, then 0 1. */
    assert_next_rows(batches, "4 5 6 7");
    assert_next_rows(batches, "0 1 2 3");
    assert_next_rows(batches, "0 1 2 3");
    assert_next_rows(batches, "4 5 6 7");
    tune_batches_free(batches);
    tune_data_free(data);
    data = open_data(*state, (TuneDataOptions){.split = "train"}, NULL);
    Error err = {0};
    assert_null(tune_batches_new(
        data,
        &(TuneBatchOptions){
            .batch_size = 11, .max_seq_length = 8, .order = TUNE_ORDER_COMPAT, .random = &random},
        &err));
    assert_string_equal(err.message,
                        "Dataset must have at least batch_size=11 examples but only has 10.");
    tune_data_free(data);
}

static void test_compat_order_is_by_the_number_of_members(void **state) {
    MersenneTwister random;
    base_mersenne_numpy(&random, 1);
    folder_text(*state, "train.jsonl",
                "{\"tokens\":[0],\"x\":1,\"y\":1}\n{\"tokens\":[1],\"x\":1}\n{\"tokens\":[2]}\n"
                "{\"tokens\":[3],\"x\":1}\n");
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "train"}, NULL);
    TuneBatches *batches = open_batches(data, (TuneBatchOptions){.batch_size = 4,
                                                                 .max_seq_length = 32,
                                                                 .order = TUNE_ORDER_COMPAT,
                                                                 .random = &random});
    assert_next_rows(batches, "2 1 3 0");
    tune_batches_free(batches);
    tune_data_free(data);
}

static void test_compat_widths(void **state) {
    static const int longest[] = {10, 32, 33, 3000}, widths[] = {33, 33, 65, 2048};
    for (int i = 0; i < 4; i++) {
        MersenneTwister random;
        base_mersenne_numpy(&random, 0);
        write_lengths(*state, (int[]){longest[i], 3}, 2);
        TuneData *data = open_data(*state, (TuneDataOptions){.split = "train"}, NULL);
        TuneBatches *batches = open_batches(data, (TuneBatchOptions){.batch_size = 2,
                                                                     .max_seq_length = 2048,
                                                                     .pad_target = true,
                                                                     .order = TUNE_ORDER_COMPAT,
                                                                     .random = &random});
        TuneBatch batch = next_batch(batches);
        assert_int_equal(batch.width, widths[i]);
        assert_int_equal(batch.longest, longest[i]);
        tune_batch_free(&batch);
        tune_batches_free(batches);
        tune_data_free(data);
    }
}

static double targets_of(const char *folder, const char *record, int max_seq_length, bool pad) {
    MersenneTwister random;
    base_mersenne_numpy(&random, 0);
    folder_text(folder, "train.jsonl", record);
    TuneData *data = open_data(folder, (TuneDataOptions){.split = "train"}, NULL);
    TuneBatches *batches = open_batches(data, (TuneBatchOptions){.batch_size = 1,
                                                                 .max_seq_length = max_seq_length,
                                                                 .pad_target = pad,
                                                                 .order = TUNE_ORDER_COMPAT,
                                                                 .random = &random});
    TuneBatch batch = next_batch(batches);
    double targets = batch.targets, sum = 0;
    for (int i = 0; i < batch.rows * batch.width; i++) sum += batch.weights[i];
    assert_true(sum == targets && batch.weights[0] == 0);
    tune_batch_free(&batch);
    tune_batches_free(batches);
    tune_data_free(data);
    return targets;
}

static void test_counted_targets_with_and_without_the_first_pad(void **state) {
    const char *plain = "{\"tokens\":[1,2,3,4,5]}\n";
    const char *masked = "{\"tokens\":[1,2,3,4,5],\"prompt_tokens\":2}\n";
    assert_true(targets_of(*state, plain, 2048, true) == 5);
    assert_true(targets_of(*state, masked, 2048, true) == 4);
    assert_true(targets_of(*state, plain, 2048, false) == 4);
    assert_true(targets_of(*state, masked, 2048, false) == 3);
    StrBuf text = {0};
    base_str_append(&text, "{\"tokens\":[0");
    for (int i = 1; i < 33; i++) base_str_appendf(&text, ",%d", i);
    base_str_append(&text, "]}\n");
    assert_true(targets_of(*state, text.data, 33, true) == 32);
    base_str_free(&text);
}

static void test_golden_masks_count_what_lies_inside_the_lengths(void **state) {
    Error err = {0};
    mx_scope s = mx_open();
    mlx_map_string_to_array tensors = mlx_map_string_to_array_new();
    mlx_map_string_to_string notes = mlx_map_string_to_string_new();
    mlx_array tokens = mlx_array_new(), lengths = mlx_array_new();
    mlx_stream cpu = mlx_default_cpu_stream_new();
    assert_int_equal(
        mlx_load_safetensors(&tensors, &notes, GOLDEN "/lora/batches.safetensors", cpu), 0);
    mlx_map_string_to_array_get(&tokens, tensors, "tokens");
    mlx_map_string_to_array_get(&lengths, tensors, "lengths");
    assert_int_equal(mlx_array_eval(tokens) | mlx_array_eval(lengths), 0);
    const int64_t *ids = mlx_array_data_int64(tokens), *length = mlx_array_data_int64(lengths);
    StrBuf text = {0};
    for (int r = 0; r < 24; r++) {
        base_str_append(&text, "{\"tokens\":[");
        for (int i = 0; i < length[r]; i++)
            base_str_appendf(&text, "%s%d", i ? "," : "", (int)ids[r * 25 + i]);
        base_str_append(&text, "]}\n");
    }
    folder_write(*state, "train.jsonl", text.data, text.length);
    base_str_free(&text);
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "train"}, NULL);
    TuneBatches *batches = open_batches(
        data, (TuneBatchOptions){
                  .batch_size = 2, .max_seq_length = 25, .once = true, .order = TUNE_ORDER_FILE});
    for (int b = 0; b < 12; b++) {
        TuneBatch batch = next_batch(batches);
        assert_int_equal(batch.rows, 2);
        assert_int_equal(batch.width, 25);
        for (int r = 0; r < 2; r++)
            for (int i = 0; i < 25; i++) {
                bool inside = i < length[b * 2 + r];
                assert_int_equal(batch.ids[r * 25 + i], inside ? ids[(b * 2 + r) * 25 + i] : 0);
                assert_true(batch.weights[r * 25 + i] == (inside && i > 0));
            }
        assert_true(batch.targets == (double)(length[b * 2] + length[b * 2 + 1] - 2));
        tune_batch_free(&batch);
    }
    TuneBatch batch;
    assert_int_equal(tune_batches_next(batches, &batch, &err), 0);
    tune_batches_free(batches);
    tune_data_free(data);
    mlx_array_free(tokens);
    mlx_array_free(lengths);
    mlx_map_string_to_array_free(tensors);
    mlx_map_string_to_string_free(notes);
    mlx_stream_free(cpu);
    mx_drop(s);
}

static void test_sorted_batches_use_every_row_once_a_pass_and_pad_little(void **state) {
    int lengths[103], seen[103] = {0}, padded = 0, tokens = 0;
    for (int i = 0; i < 103; i++) lengths[i] = 1 + i * 37 % 101;
    write_lengths(*state, lengths, 103);
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "train"}, NULL);
    TuneBatches *batches =
        open_batches(data, (TuneBatchOptions){.batch_size = 8, .max_seq_length = 200, .seed = 3});
    assert_int_equal(tune_batches_per_epoch(batches), 13);
    StrBuf first = {0}, second = {0};
    for (int pass = 1; pass <= 2; pass++)
        for (int b = 0; b < 13; b++) {
            TuneBatch batch = next_batch(batches);
            for (int r = 0; r < batch.rows; r++) {
                seen[batch.ids[r * batch.width]]++;
                base_str_appendf(pass == 1 ? &first : &second, "%d ", batch.ids[r * batch.width]);
            }
            padded += batch.rows * batch.width;
            tokens += (int)batch.tokens;
            tune_batch_free(&batch);
        }
    for (int i = 0; i < 103; i++) assert_int_equal(seen[i], 2);
    assert_string_not_equal(first.data, second.data);
    assert_true(padded - tokens < padded / 14);
    base_str_free(&first);
    base_str_free(&second);
    tune_batches_free(batches);
    tune_data_free(data);
}

static void test_packed_rows_know_their_documents(void **state) {
    write_lengths(*state, (int[]){5, 3, 2, 6, 12}, 5);
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "train"}, NULL);
    TuneBatches *batches = open_batches(
        data, (TuneBatchOptions){.batch_size = 8, .max_seq_length = 8, .pack = true, .seed = 1});
    TuneBatch batch = next_batch(batches);
    assert_int_equal(batch.rows, 3); /* 12 cut to 8; 6 and 2; 5 and 3 */
    assert_int_equal(batch.width, 8);
    assert_int_equal(batch.tokens, 24);
    assert_true(batch.targets == 7 + 5 + 1 + 4 + 2);
    for (int r = 0; r < 3; r++)
        for (int i = 1; i < 8; i++) {
            const int32_t *ids = batch.ids + r * 8, *segments = batch.segments + r * 8;
            assert_int_equal(ids[i] == ids[i - 1], segments[i] == segments[i - 1]);
            assert_true(batch.weights[r * 8 + i] == (segments[i] == segments[i - 1]));
        }
    tune_batch_free(&batch);
    tune_batches_free(batches);
    tune_data_free(data);
}

static void test_preferences_come_as_chosen_then_rejected(void **state) {
    LmModel *model = toy_open(*state);
    folder_text(*state, "train.jsonl",
                "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"cc\"}\n"
                "{\"chosen\":[{\"role\":\"user\",\"content\":\"d\"},"
                "{\"role\":\"assistant\",\"content\":\"e\"}],"
                "\"rejected\":[{\"role\":\"user\",\"content\":\"d\"},"
                "{\"role\":\"assistant\",\"content\":\"f\"}]}\n");
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "train", .pairs = true}, model);
    TuneBatches *batches = open_batches(
        data, (TuneBatchOptions){
                  .batch_size = 2, .max_seq_length = 64, .pairs = true, .order = TUNE_ORDER_FILE});
    TuneBatch batch = next_batch(batches);
    static const int32_t ids[4][7] = {{3, 8, 5, 4, 9, 5, 0},
                                      {3, 11, 5, 4, 12, 5, 0},
                                      {3, 8, 5, 4, 10, 10, 5},
                                      {3, 11, 5, 4, 13, 5, 0}};
    assert_int_equal(batch.rows, 4);
    assert_int_equal(batch.width, 7);
    assert_memory_equal(batch.ids, ids, sizeof ids);
    for (int r = 0; r < 4; r++)
        for (int i = 0; i < 7; i++)
            assert_true(batch.weights[r * 7 + i] == (i >= 4 && ids[r][i] != 0));
    tune_batch_free(&batch);
    tune_batches_free(batches);
    tune_data_free(data);
    lm_model_close(model);
}

static void test_ranks_share_every_batch(void **state) {
    int lengths[128];
    for (int i = 0; i < 128; i++) lengths[i] = 1 + i % 7;
    write_lengths(*state, lengths, 128);
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "train"}, NULL);
    for (int world = 1; world <= 4; world *= 2)
        for (int size = 4; size <= 8; size *= 2) {
            int seen[128] = {0};
            for (int rank = 0; rank < world; rank++) {
                MersenneTwister random;
                base_mersenne_numpy(&random, 5);
                TuneBatches *batches =
                    open_batches(data, (TuneBatchOptions){.batch_size = size,
                                                          .max_seq_length = 64,
                                                          .rank = rank,
                                                          .world = world,
                                                          .order = TUNE_ORDER_COMPAT,
                                                          .random = &random});
                for (size_t b = 0; b < tune_batches_per_epoch(batches); b++) {
                    TuneBatch batch = next_batch(batches);
                    assert_int_equal(batch.rows, size / world);
                    for (int r = 0; r < batch.rows; r++) {
                        int row = batch.ids[r * batch.width];
                        assert_int_equal(row % size % world, rank);
                        seen[row]++;
                    }
                    tune_batch_free(&batch);
                }
                tune_batches_free(batches);
            }
            for (int i = 0; i < 128; i++) assert_int_equal(seen[i], 1);
        }
    Error err = {0};
    assert_null(tune_batches_new(
        data, &(TuneBatchOptions){.batch_size = 3, .max_seq_length = 64, .world = 2}, &err));
    assert_string_equal(err.message, "The batch size must be divisible by the number of workers");
    tune_data_free(data);
}

static void test_a_short_last_batch_gives_every_rank_a_step_and_counts_each_row_once(void **state) {
    write_lengths(*state, (int[]){4, 4, 4, 4, 4}, 5);
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "train"}, NULL);
    double targets = 0;
    for (int rank = 0; rank < 2; rank++) {
        TuneBatches *batches = open_batches(data, (TuneBatchOptions){.batch_size = 4,
                                                                     .max_seq_length = 64,
                                                                     .rank = rank,
                                                                     .world = 2,
                                                                     .order = TUNE_ORDER_FILE});
        assert_int_equal(tune_batches_per_epoch(batches), 2);
        for (int b = 0; b < 2; b++) {
            TuneBatch batch = next_batch(batches);
            assert_int_equal(batch.rows, b ? 1 : 2);
            targets += batch.targets;
            tune_batch_free(&batch);
        }
        tune_batches_free(batches);
    }
    assert_true(targets == 5 * 3);
    tune_data_free(data);
}

/* ---- state --------------------------------------------------------------------------------- */

static void check_resume(const char *folder, TuneBatchOptions options) {
    MersenneTwister random, then;
    base_mersenne_numpy(&random, 9);
    options.random = &random;
    TuneData *data = open_data(folder, (TuneDataOptions){.split = "train"}, NULL);
    TuneBatches *batches = open_batches(data, options);
    size_t steps = 3 * tune_batches_per_epoch(batches);
    char *expected[64];
    json_t *states[64];
    MersenneTwister twisters[64];
    assert_true(steps < 64);
    for (size_t i = 0; i < steps; i++) {
        states[i] = tune_batches_state(batches);
        twisters[i] = random;
        expected[i] = next_rows(batches);
    }
    tune_batches_free(batches);
    options.random = &then;
    for (size_t start = 0; start < steps; start++) {
        Error err = {0};
        then = twisters[start];
        batches = open_batches(data, options);
        if (!tune_batches_restore(batches, states[start], &err)) fail_msg("%s", err.message);
        for (size_t i = start; i < steps; i++) assert_next_rows(batches, expected[i]);
        tune_batches_free(batches);
        json_decref(states[start]);
    }
    for (size_t i = 0; i < steps; i++) free(expected[i]);
    tune_data_free(data);
}

static void test_every_place_of_three_passes_can_be_gone_on_from(void **state) {
    int lengths[30];
    for (int i = 0; i < 30; i++) lengths[i] = 1 + i * 7 % 11;
    write_lengths(*state, lengths, 30);
    check_resume(*state, (TuneBatchOptions){.batch_size = 4, .max_seq_length = 64, .seed = 8});
    check_resume(*state, (TuneBatchOptions){
                             .batch_size = 4, .max_seq_length = 64, .order = TUNE_ORDER_COMPAT});
    check_resume(*state, (TuneBatchOptions){
                             .batch_size = 4, .max_seq_length = 64, .order = TUNE_ORDER_FILE});
    check_resume(*state, (TuneBatchOptions){.batch_size = 4, .max_seq_length = 16, .pack = true});
}

static void test_a_state_of_other_batches_is_refused_and_changes_nothing(void **state) {
    write_lengths(*state, (int[]){1, 2, 3, 4, 5, 6}, 6);
    TuneData *data = open_data(*state, (TuneDataOptions){.split = "train"}, NULL);
    TuneBatches *a = open_batches(
        data, (TuneBatchOptions){.batch_size = 2, .max_seq_length = 8, .order = TUNE_ORDER_FILE});
    TuneBatches *b = open_batches(
        data, (TuneBatchOptions){.batch_size = 3, .max_seq_length = 8, .order = TUNE_ORDER_FILE});
    Error err = {0};
    json_t *saved = tune_batches_state(a);
    assert_false(tune_batches_restore(b, saved, &err));
    assert_string_equal(err.message, "the saved run had batch_size 2, this one has 3");
    base_error_clear(&err);
    json_object_set_new(saved, "position", json_integer(99));
    assert_false(tune_batches_restore(a, saved, &err));
    assert_string_equal(err.message, "the saved place in the data is damaged");
    assert_next_rows(a, "0 1");
    assert_next_rows(b, "0 1 2");
    json_decref(saved);
    tune_batches_free(a);
    tune_batches_free(b);
    tune_data_free(data);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_make, folder_drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_text_gets_bos_from_the_tokenizer_and_one_end_token),
        TEST(test_completion_masks_what_the_generation_prompt_takes),
        TEST(test_chat_counts_the_last_message_or_every_turn),
        TEST(test_tokens_are_taken_as_they_are),
        TEST(test_features_have_names_of_their_own_and_sources_follow_each_other),
        TEST(test_a_missing_split_is_empty_and_a_missing_folder_is_an_error),
        TEST(test_bad_records_are_located),
        TEST(test_compat_groups_are_consecutive_and_the_tail_is_never_used),
        TEST(test_compat_order_is_by_the_number_of_members),
        TEST(test_compat_widths),
        TEST(test_counted_targets_with_and_without_the_first_pad),
        TEST(test_golden_masks_count_what_lies_inside_the_lengths),
        TEST(test_sorted_batches_use_every_row_once_a_pass_and_pad_little),
        TEST(test_packed_rows_know_their_documents),
        TEST(test_preferences_come_as_chosen_then_rejected),
        TEST(test_ranks_share_every_batch),
        TEST(test_a_short_last_batch_gives_every_rank_a_step_and_counts_each_row_once),
        TEST(test_every_place_of_three_passes_can_be_gone_on_from),
        TEST(test_a_state_of_other_batches_is_refused_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
