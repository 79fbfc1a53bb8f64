"""A checkpoint of DeepSeek-V3.2's architecture that calls a tool for ever: tests/data/dsv32/tiny-f16.gguf, whose
random layers stay as they are, with embeddings and an output matrix that make each of a few tokens want a certain
next one. Under the mask that is enough: all that varies in a turn is whether a call has its argument, and whether
another one follows.

One of three layers is kept, one of experts, and one of the indexer's 16 heads: its scores cost tokens squared, and a
run of 1,000 calls has some 40,000."""
import struct

BASE = 60.0  # the embedding's length: what the layers add is small beside it
ROOT_WIDTH = 128 ** 0.5  # of a normalised vector of 128

# token -> (next, logit)...; by text, but for ids where the text is a byte of the vocabulary
WANTS = {
    "<think>": [("a", 40)],
    "a": [("</think>", 40)],
    "</think>": [("<", 40), ("<\uff5cend\u2581of\u2581sentence\uff5c>", 20)],  # the end where plain words are asked for
    # Behind an invoke's line: another newline means no argument, '<' opens one.
    "\u010a": [("\u010a", 42), ("<", 40)],
    # Before prose an opener, behind an invoke another one (seven of eight times) or the end of the block, and in a
    # value the closer, since only '/' may come there.
    "<": [("\uff5cDSML\uff5c", 40), ("/", 38)],
    "/": [("\uff5cDSML\uff5c", 40), ("<", 20)],
    ">": [("x", 40)],
    "x": [("<", 40)],
}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        value = struct.unpack_from("<" + form, self.data, self.at)[0]
        self.at += struct.calcsize("<" + form)
        return value

    def text(self):
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            kind = self.take("I")
            return [self.value(kind) for _ in range(self.take("Q"))]
        return self.take({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}[kind])


def read(path):
    """(bytes of the metadata by key, their values, [name, dims, type, bytes] of the tensors)."""
    with open(path, "rb") as file:
        r = Reader(file.read())
    r.at = 8
    n_tensors, n_keys = r.take("Q"), r.take("Q")
    raw, values, tensors = {}, {}, []
    for _ in range(n_keys):
        start = r.at
        key = r.text()
        values[key] = r.value(r.take("I"))
        raw[key] = r.data[start:r.at]
    for _ in range(n_tensors):
        name = r.text()
        dims = [r.take("Q") for _ in range(r.take("I"))]
        tensors.append([name, dims, r.take("I"), r.take("Q")])
    base = (r.at + 31) // 32 * 32
    for tensor in tensors:
        count = 1
        for dim in tensor[1]:
            count *= dim
        size = count * {0: 4, 1: 2}[tensor[2]]
        tensor[3] = r.data[base + tensor[3]:base + tensor[3] + size]
    return raw, values, tensors


def write(path, raw, tensors):
    def text(t):
        return struct.pack("<Q", len(t.encode())) + t.encode()

    out, offset = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(raw))), 0
    for entry in raw.values():
        out += entry
    for name, dims, kind, data in tensors:
        out += text(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
        out += struct.pack("<IQ", kind, offset)
        offset += (len(data) + 31) // 32 * 32
    out += bytes(-len(out) % 32)
    for *_, data in tensors:
        out += data + bytes(-len(data) % 32)
    with open(path, "wb") as file:
        file.write(out)


def build(source, path):
    raw, values, tensors = read(source)
    ids = {token: i for i, token in enumerate(values["tokenizer.ggml.tokens"])}
    by_name = {t[0]: t for t in tensors}
    width, n_vocab = by_name["token_embd.weight"][1]
    embedding = list(struct.unpack(f"<{width * n_vocab}e", by_name["token_embd.weight"][3]))
    output = [0.0] * (width * n_vocab)
    for axis, (token, wants) in enumerate(WANTS.items()):
        at = ids[token] * width
        embedding[at:at + width] = [BASE * (i == axis) for i in range(width)]
        for follower, logit in wants:
            output[ids[follower] * width + axis] = logit / ROOT_WIDTH
    by_name["token_embd.weight"][3] = struct.pack(f"<{len(embedding)}e", *embedding)
    by_name["output.weight"][3] = struct.pack(f"<{len(output)}e", *output)
    by_name["output_norm.weight"][3] = struct.pack(f"<{width}f", *[1.0] * width)
    head = values["deepseek32.attention.indexer.key_length"]
    for key, value in (("attention.indexer.head_count", 1), ("block_count", 1), ("leading_dense_block_count", 0)):
        raw["deepseek32." + key] = raw["deepseek32." + key][:-4] + struct.pack("<I", value)
    tensors = [t for t in tensors if not t[0].startswith(("blk.0.", "blk.2."))]
    for tensor in tensors:
        tensor[0] = tensor[0].replace("blk.1.", "blk.0.")
    for tensor in tensors:
        rows = head if tensor[0].endswith("indexer.attn_q_b.weight") else 1 if tensor[0].endswith("indexer.proj.weight") else 0
        if rows:
            tensor[3] = tensor[3][:len(tensor[3]) // tensor[1][1] * rows]
            tensor[1][1] = rows
    write(path, raw, tensors)
