/* TensorBoard's event files: scalars over steps, in a file of their own for each time
 * that a run is started.
 *
 * A record is a length, its masked CRC32C, a tensorflow.Event and its masked CRC32C
 * (tensorflow/core/lib/io/record_writer.h, util/event.proto). Each is appended by one
 * write, so that a run that is killed leaves whole records and perhaps a part of one,
 * which readers pass over. */
#ifndef TUNE_EVENTS_H
#define TUNE_EVENTS_H

#include "base/base.h"

typedef struct TuneEvents TuneEvents;

/* A new events.out.tfevents.* in `folder`, which is made. first_step > 0: the run goes on
 * there, and what earlier files in the folder say from that step on no longer counts.
 * NULL on failure; caller frees with tune_events_close. */
TuneEvents *tune_events_open(const char *folder, int64_t first_step, Error *err);
bool tune_events_scalar(TuneEvents *events, const char *tag, int64_t step, double value,
                        Error *err);
void tune_events_close(TuneEvents *events); /* NULL ok */

#endif
