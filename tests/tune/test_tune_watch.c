/* What a run leaves to look at: curves of metrics.jsonl, plots of them, TensorBoard's
 * event files (read back with tensorboard 2.21.0 when these bytes were written). */
#include "hub/folder.h"
#include "tune/canvas.h"
#include "tune/events.h"
#include "tune/plot.h"

#include <png.h>

static TuneRun read_run(const char *folder, const char *text) {
    TuneRun run;
    Error err = {0};
    folder_text(folder, "metrics.jsonl", text);
    if (!tune_run_read(folder, &run, &err)) fail_msg("%s", err.message);
    return run;
}

#define TRAIN(iter, loss) "{\"type\": \"train\", \"iter\": " #iter ", \"loss\": " #loss "}\n"
#define VAL(iter, loss) "{\"type\": \"val\", \"iter\": " #iter ", \"loss\": " #loss "}\n"

static void test_an_unfinished_line_and_what_was_done_twice_do_not_count(void **state) {
    TuneRun run = read_run(*state, VAL(1, 3.5) TRAIN(10, 3) TRAIN(20, 2) TRAIN(30, 9) TRAIN(20, 2.5)
                                       TRAIN(30, null) "{\"type\": \"test\"}\n\n"
                                                       "{\"type\": \"train\", \"it");
    const TuneCurve *train = &run.curves[TUNE_TRAIN];
    assert_int_equal(train->count, 2);
    assert_float_equal(train->points[1].iter, 20, 0);
    assert_float_equal(train->points[1].loss, 2.5, 0);
    assert_int_equal(run.curves[TUNE_VAL].count, 1);
    json_t *summary = tune_run_json(&run);
    assert_float_equal(
        json_number_value(json_object_get(json_object_get(summary, "train"), "best_iter")), 20, 0);
    json_decref(summary);
    tune_run_free(&run);
}

static void refuses(const char *folder, const char *text, const char *why) {
    TuneRun run;
    Error err = {0};
    folder_text(folder, "metrics.jsonl", text);
    assert_false(tune_run_read(folder, &run, &err));
    if (!strstr(err.message, why)) fail_msg("%s", err.message);
}

static void test_damaged_lines_are_named(void **state) {
    refuses(*state, TRAIN(10, 3) "{\"type\": \n" TRAIN(20, 2), "metrics.jsonl: line 2");
    refuses(*state, TRAIN(10, 3) "[1]\n", "metrics.jsonl: line 2: no \"type\"");
    refuses(*state, "{\"type\": \"val\", \"iter\": 1, \"loss\": \"low\"}\n", "\"loss\" is not a");
    refuses(*state, "{\"type\": \"val\", \"loss\": 1}\n", "\"iter\" is not a number");
    refuses(*state, "", "no loss was reported yet");
}

static void test_the_plot_in_text_is_this(void **state) {
    TuneRun run = read_run(*state, VAL(1, 4) TRAIN(10, 4) TRAIN(50, 2) TRAIN(100, 1) VAL(100, 2));
    StrBuf out = {0};
    tune_plot_text(&run, 1, &(TunePlotText){.width = 42, .height = 13}, &out);
    assert_string_equal(out.data, "   * train o val\n"
                                  "4+oo  *\n"
                                  " |  oooooo\n"
                                  " |        ooooooo\n"
                                  "3+          ***  ooooooo\n"
                                  " |             **       ooooooo\n"
                                  " |               ***           ooooooo\n"
                                  "2+                  ******            ooo\n"
                                  " |                        ******\n"
                                  " |                              *******\n"
                                  "1+                                     **\n"
                                  " +---------------------------------------\n"
                                  "  0                 50                100\n");
    base_str_free(&out);
    tune_run_free(&run);
}

static void test_the_rich_plot_has_dots_of_braille_and_colours(void **state) {
    TuneRun run = read_run(*state, TRAIN(0, 1) TRAIN(10, 1));
    StrBuf out = {0};
    tune_plot_text(&run, 1, &(TunePlotText){.width = 40, .height = 10, .rich = true}, &out);
    assert_non_null(strstr(out.data, "\033[34m━━\033[0m train"));
    assert_non_null(strstr(out.data, "\033[34m⠤\033[0m\033[34m⠤\033[0m"));
    base_str_free(&out);
    tune_run_free(&run);
}

static void test_the_picture_is_a_png_with_the_curves_in_it(void **state) {
    TuneRun run = read_run(*state, TRAIN(0, 1) TRAIN(100, 2) VAL(100, 2));
    char *path = base_path_join(*state, "loss.png");
    Error err = {0};
    if (!tune_plot_png(&run, 1, 400, 250, path, &err)) fail_msg("%s", err.message);
    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_file(&image, path));
    assert_int_equal(image.width, 400);
    assert_int_equal(image.height, 250);
    image.format = PNG_FORMAT_RGB;
    uint8_t *pixels = base_alloc(PNG_IMAGE_SIZE(image));
    assert_true(png_image_finish_read(&image, NULL, pixels, 0, NULL));
    size_t blue = 0, orange = 0;
    for (size_t i = 0; i < 400 * 250; i++) {
        const uint8_t *p = pixels + 3 * i;
        blue += p[2] > p[0] + 40;
        orange += p[0] > p[2] + 80;
    }
    assert_true(blue > 300); /* a line across, and its sample in the legend */
    assert_in_range(orange, 10, 120);
    assert_int_equal(pixels[0], 255);
    free(pixels);
    assert_false(tune_plot_png(&run, 1, 400, 250, "/nowhere/at/all.png", &err));
    free(path);
    tune_run_free(&run);
}

static void test_a_line_covers_its_length_times_its_thickness(void **state) {
    (void)state;
    Canvas canvas;
    assert_true(canvas_make(&canvas, 120, 120, NULL));
    canvas_line(&canvas, 20, 20, 100, 80, 3, (Colour){0, 0, 0});
    double ink = 0;
    for (size_t i = 0; i < 120 * 120; i++) ink += (255 - canvas.pixels[3 * i]) / 255.0;
    assert_float_equal(ink, 100 * 3 + 3.14159 * 1.5 * 1.5, 6);      /* 100 long, round ends */
    canvas_line(&canvas, -1e6, 50, 1e6, 1e7, 3, (Colour){0, 0, 0}); /* most of it outside */
    canvas_free(&canvas);
}

/* ---- events -------------------------------------------------------------------------- */

static char *only_file(const char *folder, size_t at, size_t *length) {
    char **names, *bytes;
    size_t count;
    assert_true(base_list_dir(folder, &names, &count, NULL));
    assert_true(count > at);
    assert_true(base_starts_with(names[at], "events.out.tfevents."));
    char *path = base_path_join(folder, names[at]);
    assert_true(base_file_read(path, &bytes, length, NULL));
    free(path);
    for (size_t i = 0; i < count; i++) free(names[i]);
    free(names);
    return bytes;
}

static void test_events_are_records_with_their_sums(void **state) {
    char *logs = base_path_join(*state, "logs");
    Error err = {0};
    TuneEvents *events = tune_events_open(logs, 0, &err);
    assert_non_null(events);
    assert_true(tune_events_scalar(events, "train/loss", 300, 1.5, &err));
    tune_events_close(events);
    size_t length;
    char *bytes = only_file(logs, 0, &length);
    /* version: 24 bytes of event; scalar: 9 of time, 3 of step, 2 + 2 + 12 + 5 of summary */
    static const uint8_t head[] = {24, 0, 0, 0, 0, 0, 0, 0, 0xA3, 0x7F, 0x4B, 0x22, 9};
    assert_int_equal(length, (16 + 24) + (16 + 33));
    assert_memory_equal(bytes, head, sizeof head);
    static const uint8_t tail[] = "\x10\xAC\x02\x2A\x13\x0A\x11\x0A\x0Atrain/loss\x15\0\0\xC0\x3F";
    assert_memory_equal(bytes + 40 + 12 + 9, tail, sizeof tail - 1);
    free(bytes);
    free(logs);
}

static void test_a_run_that_goes_on_says_from_where(void **state) {
    Error err = {0};
    char *logs = base_path_join(*state, "more");
    tune_events_close(tune_events_open(logs, 0, &err));
    tune_events_close(tune_events_open(logs, 40, &err));
    size_t length;
    char *bytes = only_file(logs, 1, &length);
    static const uint8_t start[] = {0x10, 40, 0x3A, 2, 8, 1};
    assert_int_equal(length, 40 + 16 + 9 + sizeof start);
    assert_memory_equal(bytes + 40 + 12 + 9, start, sizeof start);
    free(bytes);
    free(logs);
    assert_null(tune_events_open("/proc/no/such", 0, &err));
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_make, folder_drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_an_unfinished_line_and_what_was_done_twice_do_not_count),
        IN_FOLDER(test_damaged_lines_are_named),
        IN_FOLDER(test_the_plot_in_text_is_this),
        IN_FOLDER(test_the_rich_plot_has_dots_of_braille_and_colours),
        IN_FOLDER(test_the_picture_is_a_png_with_the_curves_in_it),
        cmocka_unit_test(test_a_line_covers_its_length_times_its_thickness),
        IN_FOLDER(test_events_are_records_with_their_sums),
        IN_FOLDER(test_a_run_that_goes_on_says_from_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
