/* Task files of any bytes: the first byte sets how many examples go before each
 * question and whether they come from a file of their own. */
#include "folder.h"
#include "lm/task.h"

static char train[96];

static void start(void) {
    folder_make();
    snprintf(train, sizeof train, "%s/train.jsonl", folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!folder[0]) start();
    if (size == 0) return 0;
    folder_put("test.jsonl", data + 1, size - 1);
    if (data[0] & 4)
        folder_put("train.jsonl", data + 1, size - 1);
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
