/* YAML files as jansson's trees. */
#ifndef TUNE_YAML_H
#define TUNE_YAML_H

#include "base/base.h"

/* The first document of a YAML file, with PyYAML's meaning of plain words; 1e-5 is a
 * number; an empty file is null. Messages name file, line and column. NULL on failure;
 * caller json_decref's. */
json_t *tune_yaml_load(const char *path, Error *err);
json_t *tune_yaml_parse(const char *text, size_t length, const char *name, Error *err);

#endif
