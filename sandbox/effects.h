/* Effect probes: what a confined process must not be able to do, tried for real in a throw-away
 * workload. One success means that a layer does not hold on this host, whatever its setup reported.
 */
#ifndef WEFT_SANDBOX_EFFECTS_H
#define WEFT_SANDBOX_EFFECTS_H

#include "sandbox/layers.h"

/* Runs every probe in the calling process, which is spoilt by it. Returns the index of the first one
 * that succeeded, or -1. */
int sandbox_effects_try(void);
/* "connect to the loopback address"; constant. */
const char *sandbox_effect_name(int index);
/* The layer that should have denied it. */
sandbox_layer sandbox_effect_layer(int index);

#endif
