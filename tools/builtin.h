/* The built-in tools: a name, a manifest out of schemas/tools/, a function. */
#ifndef WEFT_TOOLS_BUILTIN_H
#define WEFT_TOOLS_BUILTIN_H

#include "tools/set.h"

typedef struct builtin_tool {
    const char *name;
    const char *manifest; /* JSON text, embedded at build time by scripts/embed.py */
    tool_function run;
} builtin_tool;

/* In the order in which "all" offers them; static. */
const builtin_tool *builtin_tools(size_t *n);

#endif
