/* PyTorch files of any bytes: loading ends in tensors that can be read, or in an
 * error. An input that is neither form is also read as a bare pickle. */
#include "hub/torch.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void touch(void *context, const char *name, mlx_array array) {
    (void)context;
    (void)name;
    if (mlx_array_nbytes(array) > 1 << 22) return;
    mx_eval(&array, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char path[64];
    if (!path[0]) snprintf(path, sizeof path, "/dev/shm/mlx-rag-fuzz-torch-%d", (int)getpid());
    FILE *file = fopen(path, "wb");
    if (!file) return 0;
    fwrite(data, 1, size, file);
    fclose(file);
    Error err = {0};
    hub_torch_load(path, (MxFileVisitor){.tensor = touch}, &err);
    unlink(path);
    Arena *arena = base_arena_new();
    base_error_clear(&err);
    pickle_read(data, size, arena, NULL, &err);
    base_arena_free(arena);
    mx_check(NULL);
    return 0;
}
