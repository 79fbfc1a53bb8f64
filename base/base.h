/* The foundations, in one include: errors, byte strings, JSON, digests, files, clocks, fault
 * points. */
#ifndef WEFT_BASE_H
#define WEFT_BASE_H

#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/memory.h"

#endif
