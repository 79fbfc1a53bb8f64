/* The reader of one GGUF part: bytes in, a checked table of metadata and tensors out. Private to
 * engine/gguf*.c.
 *
 * Everything it stores points into the part's bytes and has been checked to lie there; nothing is
 * trusted twice. Names are found by binary search over sorted indices: a hash table would let a
 * crafted file choose its collisions.
 */
#ifndef WEFT_ENGINE_GGUF_READ_H
#define WEFT_ENGINE_GGUF_READ_H

#include "engine/gguf.h"

/* Value types with their GGUF numbers; a size of 0 marks the two without a fixed one. */
typedef enum gguf_type {
    GGUF_U8 = 0,
    GGUF_I8 = 1,
    GGUF_U16 = 2,
    GGUF_I16 = 3,
    GGUF_U32 = 4,
    GGUF_I32 = 5,
    GGUF_F32 = 6,
    GGUF_BOOL = 7,
    GGUF_STRING = 8,
    GGUF_ARRAY = 9,
    GGUF_U64 = 10,
    GGUF_I64 = 11,
    GGUF_F64 = 12
} gguf_type;

typedef struct gguf_value {
    weft_text key;
    gguf_type type; /* of the value, or of the elements if is_array */
    bool is_array;
    uint64_t count;         /* elements; 1 for a scalar */
    const uint8_t *data;    /* first element; a string element is a u64 length and its bytes */
    const uint8_t **string; /* [count] element starts of a string array, else NULL; owned */
} gguf_value;

typedef struct gguf_part {
    const uint8_t *base;
    size_t size;
    bool mapped;       /* by us: unmapped at close; otherwise borrowed */
    weft_tensor_file file; /* if mapped; owns both */
    size_t data_start; /* end of header, metadata and tensor table, aligned if there are tensors */

    gguf_value *value; /* [n_values] in file order */
    size_t n_values;
    uint32_t *by_key; /* [n_values] indices sorted by key */

    weft_tensor *tensor; /* [n_tensors] in file order */
    size_t n_tensors;
    char *names; /* the tensors' names, each with a NUL */
} gguf_part;

/* Fills values and tensors from base and size; `label` names the file in errors. On failure what
 * was allocated is still there for gguf_part_free. */
weft_status gguf_part_read(gguf_part *part, const char *label, weft_error *err);
void gguf_part_free(gguf_part *part); /* tables only, not the bytes */

/* NULL if there is no such key. */
const gguf_value *gguf_value_find(const gguf_part *part, const char *key);
/* Element i as an integer or a double; false if the type does not fit. */
bool gguf_value_int(const gguf_value *value, uint64_t i, int64_t *out);
bool gguf_value_float(const gguf_value *value, uint64_t i, double *out);
weft_text gguf_value_text(const gguf_value *value, uint64_t i); /* type must be GGUF_STRING */

/* n bytes from `offset` of a file on; `what` they are, for the message. WEFT_E_STORAGE: see weft_tensor_read. */
weft_status gguf_read(const weft_tensor_file *file, const char *what, size_t offset, size_t n,
                      void *out, weft_error *err);

#endif
