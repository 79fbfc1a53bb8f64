/* Runs a program for a tool: one sandbox request, its facts, its words. */
#ifndef WEFT_TOOLS_CONFINE_H
#define WEFT_TOOLS_CONFINE_H

#include "tools/set.h"

/* Runs the request and adds facts (exit, signal, hit, times, layers, denials, digests of the
 * streams). *ran is false where the tool cannot run but the run goes on: output then holds the
 * refusal. What is returned in result is freed with weft_sandbox_result_free if *ran.
 * WEFT_E_SANDBOX, WEFT_E_INTERRUPTED and WEFT_E_MEMORY end the run. */
weft_status confine_run(const tool_call *call, const weft_sandbox_request *request,
                        tool_output *output, weft_sandbox_result *result, bool *ran,
                        weft_error *err);

/* Appends a stream, with a line where bytes are missing from its middle. */
void confine_put_stream(const weft_sandbox_stream *stream, weft_buffer *out);
/* Appends at most `lines` last lines and 2,000 bytes. */
void confine_put_last_lines(const weft_sandbox_stream *stream, size_t lines, weft_buffer *out);
/* What ended the program, as words without a full stop: "the time limit of 10 s was reached",
 * "it was ended by signal 11 (Segmentation fault)", "exit status 3". False if it ended well. */
bool confine_put_end(const weft_sandbox_request *request, const weft_sandbox_result *result,
                     weft_buffer *out);

#endif
