/* What was in force and what was denied, as canonical JSON for the trace. */
#ifndef WEFT_SANDBOX_REPORT_H
#define WEFT_SANDBOX_REPORT_H

#include "sandbox/wire.h"

/* {"layers":{name:bool...},"level":"full"}, layers of a call, level of the host; malloc'd. */
weft_status sandbox_layers_json(sandbox_layers layers, bool no_proc, char **out, weft_error *err);
/* [{"call":name,"count":n}...] in the order of first denial; malloc'd. */
weft_status sandbox_denials_json(const sandbox_report *report, char **out, weft_error *err);
/* weft_sandbox_check's object; malloc'd. */
weft_status sandbox_verdict_json(const sandbox_verdict *verdict, char **out, weft_error *err);

#endif
