/* Parts of the probe program. */
#ifndef WEFT_TESTS_SANDBOX_PROBE_H
#define WEFT_TESTS_SANDBOX_PROBE_H

/* Behaves as argv[1] says (probe_modes.c); exit status of the program. */
int probe_mode(int argc, char **argv);

#endif
