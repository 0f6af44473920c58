/* Task files of any bytes: the first byte sets how many examples go before each
 * question and whether they come from a file of their own. */
#include "lm/task.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64], test[96], train[96];

static void drop(void) {
    unlink(test);
    unlink(train);
    rmdir(folder);
}

static void start(void) {
    snprintf(folder, sizeof folder, "/dev/shm/mlx-rag-fuzz-XXXXXX");
    if (!mkdtemp(folder)) abort();
    snprintf(test, sizeof test, "%s/test.jsonl", folder);
    snprintf(train, sizeof train, "%s/train.jsonl", folder);
    atexit(drop);
}

static void put(const char *path, const uint8_t *bytes, size_t length) {
    FILE *file = fopen(path, "wb");
    if (!file) return;
    fwrite(bytes, 1, length, file);
    fclose(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!folder[0]) start();
    if (size == 0) return 0;
    put(test, data + 1, size - 1);
    if (data[0] & 4)
        put(train, data + 1, size - 1);
    else
        unlink(train);
    LmTaskPrompt prompt = {.num_shots = data[0] & 3, .seed = 123};
    LmTask *task = lm_task_open(folder, &prompt, NULL);
    for (uint32_t i = 0; task && i < lm_task_count(task) && i < 8; i++) {
        LmQuestion question;
        if (lm_task_question(task, NULL, i, &question, NULL)) lm_question_free(&question);
    }
    lm_task_close(task);
    return 0;
}
