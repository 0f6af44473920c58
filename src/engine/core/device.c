/* Devices and streams. There is one device, the CPU; streams are numbers that
 * name it, kept because MLX's API asks for one in every call. */
#include "mlx/c/device.h"

#include "engine/core/internal.h"
#include "mlx/c/stream.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

typedef struct Device {
    mlx_device_type type;
    int index;
} Device;

typedef struct Stream {
    Device device;
    int index;
} Stream;

static const char *const device_names[] = {[MLX_CPU] = "cpu", [MLX_GPU] = "gpu"};

static void device_store(mlx_device *dev, Device value) {
    if (!dev->ctx) dev->ctx = base_alloc(sizeof(Device));
    *(Device *)dev->ctx = value;
}

static bool device_exists(const Device *device) {
    return device->type == MLX_CPU && device->index == 0;
}

/* "<what fails> gpu <thing> without gpu backend.", or that there is one CPU. */
static void device_missing(const char *failure, const Device *device, const char *thing) {
    if (device->type == MLX_GPU)
        op_error("%s gpu %s without gpu backend.", failure, thing);
    else
        op_error("%s cpu %s: there is no cpu %d, only cpu 0.", failure, thing, device->index);
}

mlx_device mlx_device_new(void) {
    return (mlx_device){NULL};
}

mlx_device mlx_device_new_type(mlx_device_type type, int index) {
    mlx_device dev = {NULL};
    if (type != MLX_CPU && type != MLX_GPU)
        op_error("%d is not a device type", (int)type);
    else
        device_store(&dev, (Device){type, index});
    return dev;
}

int mlx_device_free(mlx_device dev) {
    free(dev.ctx);
    return 0;
}

int mlx_device_set(mlx_device *dev, const mlx_device src) {
    const Device *source = ctx_of(src, mlx_device);
    if (!source) return 1;
    device_store(dev, *source);
    return 0;
}

int mlx_device_tostring(mlx_string *str, mlx_device dev) {
    const Device *device = ctx_of(dev, mlx_device);
    if (!device) return 1;
    char text[64];
    snprintf(text, sizeof text, "Device(%s, %d)", device_names[device->type], device->index);
    return string_finish(str, text);
}

bool mlx_device_equal(mlx_device lhs, mlx_device rhs) {
    const Device *a = lhs.ctx, *b = rhs.ctx;
    return a == b || (a && b && a->type == b->type && a->index == b->index);
}

int mlx_device_get_index(int *index, mlx_device dev) {
    const Device *device = ctx_of(dev, mlx_device);
    if (!device) return 1;
    *index = device->index;
    return 0;
}

int mlx_device_get_type(mlx_device_type *type, mlx_device dev) {
    const Device *device = ctx_of(dev, mlx_device);
    if (!device) return 1;
    *type = device->type;
    return 0;
}

int mlx_get_default_device(mlx_device *dev) {
    device_store(dev, (Device){MLX_CPU, 0});
    return 0;
}

int mlx_set_default_device(mlx_device dev) {
    const Device *device = ctx_of(dev, mlx_device);
    if (!device) return 1;
    if (device_exists(device)) return 0;
    device_missing("[set_default_device] Cannot set", device, "device");
    return 1;
}

int mlx_device_is_available(bool *avail, mlx_device dev) {
    const Device *device = ctx_of(dev, mlx_device);
    if (!device) return 1;
    *avail = device_exists(device);
    return 0;
}

int mlx_device_count(int *count, mlx_device_type type) {
    *count = type == MLX_CPU ? 1 : 0;
    return 0;
}

/* ---- facts about a device ---- */

mlx_device_info mlx_device_info_new(void) {
    return (mlx_device_info){map_new()};
}

int mlx_device_info_free(mlx_device_info info) {
    map_free(info.ctx);
    return 0;
}

/* The processor's name as Linux tells it, or the machine's kind. */
static char *cpu_name(const struct utsname *system) {
    char *text, *name = NULL;
    size_t length;
    if (base_file_read("/proc/cpuinfo", &text, &length, NULL)) {
        char *line = strstr(text, "model name");
        char *value = line ? strchr(line, ':') : NULL;
        if (value) {
            value += strspn(value, ": \t");
            name = base_strndup(value, strcspn(value, "\n"));
        }
        free(text);
    }
    return name ? name : base_strdup(system->machine);
}

int mlx_device_info_get(mlx_device_info *info, mlx_device dev) {
    const Device *device = ctx_of(dev, mlx_device);
    struct utsname system;
    if (!device) return 1;
    if (!info->ctx) *info = mlx_device_info_new();
    map_clear(info->ctx);
    if (!device_exists(device)) return 0;
    if (uname(&system) != 0) snprintf(system.machine, sizeof system.machine, "unknown");
    map_insert_owned(info->ctx, "device_name", &element_text, cpu_name(&system));
    map_insert_owned(info->ctx, "architecture", &element_text, base_strdup(system.machine));
    return 0;
}

int mlx_device_info_has_key(bool *exists, mlx_device_info info, const char *key) {
    const Map *map = ctx_of(info, mlx_device_info);
    if (!map) return 1;
    *exists = map_find(map, key) != NULL;
    return 0;
}

int mlx_device_info_is_string(bool *is_string, mlx_device_info info, const char *key) {
    const Map *map = ctx_of(info, mlx_device_info);
    if (!map) return 1;
    if (!map_find(map, key)) return 2;
    *is_string = true; /* the numbers are known for GPUs only */
    return 0;
}

int mlx_device_info_get_string(const char **value, mlx_device_info info, const char *key) {
    const Map *map = ctx_of(info, mlx_device_info);
    if (!map) return 1;
    const MapEntry *entry = map_find(map, key);
    if (!entry) return 2;
    *value = entry->value;
    return 0;
}

int mlx_device_info_get_size(size_t *value, mlx_device_info info, const char *key) {
    (void)value;
    (void)key;
    return ctx_of(info, mlx_device_info) ? 2 : 1;
}

int mlx_device_info_get_keys(mlx_vector_string *keys, mlx_device_info info) {
    const Map *map = ctx_of(info, mlx_device_info);
    if (!map) return 1;
    if (!keys->ctx) *keys = mlx_vector_string_new();
    vector_clear(keys->ctx);
    for (size_t i = 0; i < map->count; i++) vector_append(keys->ctx, map->entries[i].key);
    return 0;
}

/* ---- streams ---- */

static _Atomic int stream_count = 1;    /* 0 is the first default stream */
static _Thread_local int thread_stream; /* the thread's default, by index */

static void stream_store(mlx_stream *stream, Stream value) {
    if (!stream->ctx) stream->ctx = base_alloc(sizeof(Stream));
    *(Stream *)stream->ctx = value;
}

bool engine_stream_ok(const char *file, int line, mlx_stream stream) {
    return handle_ctx(file, line, stream.ctx, "mlx_stream") != NULL;
}

mlx_stream mlx_stream_new(void) {
    return (mlx_stream){NULL};
}

mlx_stream mlx_stream_new_device(mlx_device dev) {
    const Device *device = ctx_of(dev, mlx_device);
    mlx_stream stream = {NULL};
    if (!device) return stream;
    if (device_exists(device))
        stream_store(&stream, (Stream){*device, atomic_fetch_add(&stream_count, 1)});
    else
        device_missing("[new_stream] Cannot make", device, "stream");
    return stream;
}

int mlx_stream_set(mlx_stream *stream, const mlx_stream src) {
    const Stream *source = ctx_of(src, mlx_stream);
    if (!source) return 1;
    stream_store(stream, *source);
    return 0;
}

int mlx_stream_free(mlx_stream stream) {
    free(stream.ctx);
    return 0;
}

int mlx_stream_tostring(mlx_string *str, mlx_stream stream) {
    const Stream *value = ctx_of(stream, mlx_stream);
    if (!value) return 1;
    char text[96];
    snprintf(text, sizeof text, "Stream(Device(%s, %d), %d)", device_names[value->device.type],
             value->device.index, value->index);
    return string_finish(str, text);
}

bool mlx_stream_equal(mlx_stream lhs, mlx_stream rhs) {
    const Stream *a = lhs.ctx, *b = rhs.ctx;
    return a == b || (a && b && a->index == b->index);
}

int mlx_stream_get_device(mlx_device *dev, mlx_stream stream) {
    const Stream *value = ctx_of(stream, mlx_stream);
    if (!value) return 1;
    device_store(dev, value->device);
    return 0;
}

int mlx_stream_get_index(int *index, mlx_stream stream) {
    const Stream *value = ctx_of(stream, mlx_stream);
    if (!value) return 1;
    *index = value->index;
    return 0;
}

/* All work is done when a call returns. */
int mlx_synchronize(mlx_stream stream) {
    return ctx_of(stream, mlx_stream) ? 0 : 1;
}

int mlx_get_default_stream(mlx_stream *stream, mlx_device dev) {
    const Device *device = ctx_of(dev, mlx_device);
    if (!device) return 1;
    if (!device_exists(device)) {
        device_missing("[default_stream] Cannot get", device, "stream");
        return 1;
    }
    stream_store(stream, (Stream){*device, thread_stream});
    return 0;
}

int mlx_set_default_stream(mlx_stream stream) {
    const Stream *value = ctx_of(stream, mlx_stream);
    if (!value) return 1;
    thread_stream = value->index;
    return 0;
}

mlx_stream mlx_default_cpu_stream_new(void) {
    mlx_stream stream = {NULL};
    stream_store(&stream, (Stream){{MLX_CPU, 0}, thread_stream});
    return stream;
}

mlx_stream mlx_default_gpu_stream_new(void) {
    device_missing("[default_stream] Cannot get", &(Device){MLX_GPU, 0}, "stream");
    return (mlx_stream){NULL};
}
