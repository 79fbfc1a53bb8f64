/* Digests and randomness over libsodium. sodium_init is idempotent and thread-safe, so it is called
 * at the only place that needs it (the random source). */
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

void weft_sha256_init(weft_sha256 *h)
{
    crypto_hash_sha256_init(h);
}

void weft_sha256_update(weft_sha256 *h, const void *bytes, size_t n)
{
    crypto_hash_sha256_update(h, bytes, n);
}

void weft_sha256_final(weft_sha256 *h, uint8_t out[WEFT_DIGEST_BYTES])
{
    crypto_hash_sha256_final(h, out);
}

void weft_sha256_of(const void *bytes, size_t n, uint8_t out[WEFT_DIGEST_BYTES])
{
    crypto_hash_sha256(out, bytes, n);
}

void weft_blake2b_of(const void *prefix, size_t n_prefix, const void *bytes, size_t n,
                     uint8_t out[WEFT_DIGEST_BYTES])
{
    crypto_generichash_state h;
    crypto_generichash_init(&h, NULL, 0, WEFT_DIGEST_BYTES);
    if (n_prefix) crypto_generichash_update(&h, prefix, n_prefix);
    crypto_generichash_update(&h, bytes, n);
    crypto_generichash_final(&h, out, WEFT_DIGEST_BYTES);
}

char *weft_hex(const uint8_t *bytes, size_t n, char *out)
{
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digit[bytes[i] >> 4];
        out[2 * i + 1] = digit[bytes[i] & 15];
    }
    out[2 * n] = '\0';
    return out;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool weft_unhex(const char *text, uint8_t *out, size_t n)
{
    if (strlen(text) != 2 * n) return false;
    for (size_t i = 0; i < n; i++)
        if (hex_value(text[2 * i]) < 0 || hex_value(text[2 * i + 1]) < 0) return false;
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(hex_value(text[2 * i]) << 4 | hex_value(text[2 * i + 1]));
    return true;
}

weft_status weft_sha256_file(const char *path, uint8_t out[WEFT_DIGEST_BYTES], weft_error *err)
{
    enum { CHUNK = 1 << 16 };
    unsigned char chunk[CHUNK];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return weft_fail_errno(err, WEFT_E_NOT_FOUND, "read %s", path);
    weft_sha256 h;
    weft_sha256_init(&h);
    for (;;) {
        ssize_t n = read(fd, chunk, CHUNK);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            weft_fail_errno(err, WEFT_E_STORAGE, "read %s", path);
            close(fd);
            return WEFT_E_STORAGE;
        }
        if (n == 0) break;
        weft_sha256_update(&h, chunk, (size_t)n);
    }
    close(fd);
    weft_sha256_final(&h, out);
    return WEFT_OK;
}

void weft_random(void *out, size_t n)
{
    if (sodium_init() < 0) __builtin_trap(); /* no random source: nothing safe can follow */
    randombytes_buf(out, n);
}
