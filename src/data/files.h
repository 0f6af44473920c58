/* Inside data: lists of files, for the sources that are made of several. */
#ifndef DATA_FILES_H
#define DATA_FILES_H

#include "data/buffer.h"

typedef struct DxFile {
    char *path;
    size_t name; /* where in the path its name under the named folder begins */
    int64_t size, mtime_ns;
} DxFile;
typedef struct DxFileList {
    DxFile *items;
    size_t count, capacity;
} DxFileList;

/* Sorted by path, each once. */
bool dx_list_files(const DxFilesOptions *options, DxFileList *list, Error *err);
void dx_file_list_free(DxFileList *list);

#endif
