/* Fault points for crash tests: WEFT_FAULT=point:n makes the n-th pass (from 1) of a named point
 * die by SIGKILL, WEFT_FAULT=point:n:fail makes it return true once, so that the caller takes its
 * error path. Compiled in only with -Dfaults=true; otherwise the macro is the constant false. */
#ifndef WEFT_BASE_FAULT_H
#define WEFT_BASE_FAULT_H

#include <stdbool.h>

#ifdef WEFT_FAULTS
bool weft_fault_hit(const char *point);
#define WEFT_FAULT_POINT(name) weft_fault_hit(name)
#else
#define WEFT_FAULT_POINT(name) false
#endif

#endif
