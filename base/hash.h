/* Digests: SHA-256 (files, trace, wire formats) and BLAKE2b-256 (KV pages, where speed counts).
 * Both are libsodium's. */
#ifndef WEFT_BASE_HASH_H
#define WEFT_BASE_HASH_H

#include "base/error.h"

#include <sodium.h>
#include <stdint.h>

enum { WEFT_DIGEST_BYTES = 32, WEFT_DIGEST_HEX_BYTES = 65 };

typedef crypto_hash_sha256_state weft_sha256;

void weft_sha256_init(weft_sha256 *h);
void weft_sha256_update(weft_sha256 *h, const void *bytes, size_t n);
void weft_sha256_final(weft_sha256 *h, uint8_t out[WEFT_DIGEST_BYTES]);
void weft_sha256_of(const void *bytes, size_t n, uint8_t out[WEFT_DIGEST_BYTES]);
/* BLAKE2b with a 32-byte output over prefix || bytes; prefix may be NULL with n_prefix 0. */
void weft_blake2b_of(const void *prefix, size_t n_prefix, const void *bytes, size_t n,
                     uint8_t out[WEFT_DIGEST_BYTES]);
/* Lower-case hex with a NUL; out holds 2 n + 1 bytes. Returns out. */
char *weft_hex(const uint8_t *bytes, size_t n, char *out);
/* Parses exactly 2 n hex digits. False if the text is anything else. */
bool weft_unhex(const char *text, uint8_t *out, size_t n);
/* SHA-256 of a file's content. */
weft_status weft_sha256_file(const char *path, uint8_t out[WEFT_DIGEST_BYTES], weft_error *err);
/* n bytes from the system's random source. */
void weft_random(void *out, size_t n);

#endif
