/* The settings of a training run: mlx-lm's, and ours beside them.
 *
 * A setting comes from the command line, else from the YAML file, else (when a run is
 * resumed) from the run's own record, else it is the default; a null is as if it were
 * not there. The whole, with mlx-lm's names, is adapter_config.json; of ours only what
 * differs from its default stands there, so that a plain run's file has mlx-lm's keys
 * and no other. */
#ifndef TUNE_CONFIG_H
#define TUNE_CONFIG_H

#include "base/base.h"
#include "tune/schedule.h"

typedef struct TuneConfig {
    json_t *values; /* object of all settings */

    /* What stands in it, read and checked; texts and trees borrowed. */
    const char *model, *data, *fine_tune_type, *optimizer, *adapter_path, *resume_adapter_file;
    const char *report_to, *project_name, *loss, *compat_with, *dtype;
    bool train, test, mask_prompt, grad_checkpoint, trust_remote_code;
    bool no_shuffle, pack, every_turn, save_best, save_peft, rslora;
    int num_layers, batch_size, iters, val_batches, steps_per_report, steps_per_eval;
    int grad_accumulation_steps, save_every, test_batches, max_seq_length, patience;
    int rank, warmup;
    int64_t seed;
    double learning_rate, epochs, min_delta, max_grad_norm, beta;
    double scale, dropout, lr_end, lr_decay_rate, warmup_init;
    int lr_decay_steps;
    const char *schedule;
    const json_t *optimizer_config, *lr_schedule, *lora_parameters, *hf_dataset;
    const json_t *keys; /* list of module names, or NULL: the default ones */

    bool compat;                                   /* with mlx-lm, quirks included */
    bool num_layers_given, lora_given, keys_given; /* by flag or file */
    bool scale_given, rank_given;
} TuneConfig;

/* Each layer is an object or NULL, keys as in YAML; `name` of the YAML file is for
 * messages. false: *err, and *config is {0}. tune_config_free. */
typedef struct TuneConfigLayers {
    const json_t *flags, *file, *saved;
    const char *file_name;
} TuneConfigLayers;
bool tune_config_make(const TuneConfigLayers *layers, TuneConfig *config, Error *err);
void tune_config_free(TuneConfig *config);

/* Replaces a setting, in the tree and in what was read from it; takes the reference. */
bool tune_config_set(TuneConfig *config, const char *key, json_t *value, Error *err);
/* The optimiser's own part of optimizer_config; NULL: none. Borrowed. */
const json_t *tune_config_optimizer(const TuneConfig *config);
/* Fixes what depends on the data: --epochs of `per_epoch` batches become iters, a
 * schedule named by a flag becomes lr_schedule in mlx-lm's form. */
bool tune_config_settle(TuneConfig *config, size_t per_epoch, Error *err);
bool tune_config_schedule(const TuneConfig *config, TuneSchedule *schedule, Error *err);
/* What adapter_config.json says; caller json_decref's. */
json_t *tune_config_record(const TuneConfig *config);
/* The first setting of two records on which the course of a run depends and that
 * differs; NULL: a run may be resumed. Static. */
const char *tune_config_differs(const json_t *saved, const json_t *now);

#endif
