"""A random DeepSeek-V3.2 checkpoint with the real model's head shapes, few layers and small feed-forwards, as GGUF. Weights
are Q4_0 blocks drawn once and repeated; the vocabulary is the tiny checkpoint's. What it says is noise; what it
costs is what the shapes cost.
"""
import pathlib
import random
import struct

ROOT = pathlib.Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "data" / "dsv32" / "tiny-f16.gguf"
U32, F32, BOOL, STRING = 4, 6, 7, 8
TENSOR_F32, TENSOR_Q4_0 = 0, 2
ALIGN = 32

SHAPE = dict(layers=2, embd=1024, heads=128, nope=128, rope=64, value=128, latent=512, q_lora=1536, index_heads=64,
             index_dim=128, top_k=2048, ff=512, experts=4, used=2, expert_ff=256, vocab=512)


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def tokenizer_keys(path):
    """The tokenizer.* key-value pairs of a GGUF file, as they stand there."""
    data, at, pairs = path.read_bytes(), 24, []
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def skip(kind, at):
        if kind == 8:
            return at + 8 + struct.unpack_from("<Q", data, at)[0]
        if kind != 9:
            return at + sizes[kind]
        element, n = struct.unpack_from("<IQ", data, at)
        at += 12
        for _ in range(n):
            at = skip(element, at)
        return at

    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        begin = at
        size = struct.unpack_from("<Q", data, at)[0]
        key = data[at + 8:at + 8 + size].decode()
        at += 8 + size
        at = skip(struct.unpack_from("<I", data, at)[0], at + 4)
        if key.startswith("tokenizer."):
            pairs.append(data[begin:at])
    return pairs


def metadata(s):
    a = "deepseek32."
    values = {
        "general.architecture": "deepseek32", "general.name": "random, real head shapes", a + "block_count": s["layers"] + s.get("predictions", 0),
        a + "context_length": 163840, a + "embedding_length": s["embd"], a + "feed_forward_length": s["ff"],
        a + "attention.head_count": s["heads"], a + "attention.head_count_kv": 1,
        a + "attention.layer_norm_rms_epsilon": 1e-6, a + "rope.freq_base": 10000.0,
        a + "rope.dimension_count": s["rope"], a + "rope.scaling.type": "yarn", a + "rope.scaling.factor": 40.0,
        a + "rope.scaling.original_context_length": 4096, a + "rope.scaling.yarn_log_multiplier": 0.1,
        a + "rope.scaling.yarn_beta_fast": 32.0, a + "rope.scaling.yarn_beta_slow": 1.0,
        a + "attention.key_length": s["latent"] + s["rope"], a + "attention.value_length": s["latent"],
        a + "attention.key_length_mla": s["nope"] + s["rope"], a + "attention.value_length_mla": s["value"],
        a + "attention.q_lora_rank": s["q_lora"], a + "attention.kv_lora_rank": s["latent"],
        a + "attention.indexer.head_count": s["index_heads"], a + "attention.indexer.key_length": s["index_dim"],
        a + "attention.indexer.top_k": s["top_k"], a + "leading_dense_block_count": 1, a + "vocab_size": s["vocab"],
        a + "expert_count": s["experts"], a + "expert_used_count": s["used"], a + "expert_shared_count": 1,
        a + "expert_feed_forward_length": s["expert_ff"], a + "expert_gating_func": 2, a + "expert_weights_norm": True,
        a + "expert_weights_scale": 2.5, a + "expert_group_count": 2, a + "expert_group_used_count": 1,
    }
    pairs = tokenizer_keys(TINY)
    for key, value in values.items():
        if isinstance(value, bool):
            pairs.append(text(key) + struct.pack("<I?", BOOL, value))
        elif isinstance(value, int):
            pairs.append(text(key) + struct.pack("<II", U32, value))
        elif isinstance(value, float):
            pairs.append(text(key) + struct.pack("<If", F32, value))
        else:
            pairs.append(text(key) + struct.pack("<I", STRING) + text(value))
    return pairs


def tensors(s):
    """(name, dims with columns first, is it quantised, scale of the values)"""
    embd, latent, heads = s["embd"], s["latent"], s["heads"]
    yield "token_embd.weight", (embd, s["vocab"]), True
    yield "output.weight", (embd, s["vocab"]), True
    yield "output_norm.weight", (embd,), False
    for i in range(s["layers"] + s.get("predictions", 0)):
        b = f"blk.{i}."
        yield b + "attn_norm.weight", (embd,), False
        yield b + "attn_q_a.weight", (embd, s["q_lora"]), True
        yield b + "attn_q_a_norm.weight", (s["q_lora"],), False
        yield b + "attn_q_b.weight", (s["q_lora"], heads * (s["nope"] + s["rope"])), True
        yield b + "attn_kv_a_mqa.weight", (embd, latent + s["rope"]), True
        yield b + "attn_kv_a_norm.weight", (latent,), False
        yield b + "attn_k_b.weight", (s["nope"], latent, heads), True
        yield b + "attn_v_b.weight", (latent, s["value"], heads), True
        yield b + "attn_output.weight", (heads * s["value"], embd), True
        yield b + "indexer.attn_q_b.weight", (s["q_lora"], s["index_heads"] * s["index_dim"]), True
        yield b + "indexer.attn_k.weight", (embd, s["index_dim"]), True
        yield b + "indexer.k_norm.weight", (s["index_dim"],), False
        yield b + "indexer.k_norm.bias", (s["index_dim"],), False
        yield b + "indexer.proj.weight", (embd, s["index_heads"]), False
        yield b + "ffn_norm.weight", (embd,), False
        if i == 0:
            yield b + "ffn_gate.weight", (embd, s["ff"]), True
            yield b + "ffn_up.weight", (embd, s["ff"]), True
            yield b + "ffn_down.weight", (s["ff"], embd), True
            continue
        yield b + "ffn_gate_inp.weight", (embd, s["experts"]), False
        yield b + "exp_probs_b.bias", (s["experts"],), False
        for part, n in (("exps", s["experts"]), ("shexp", 0)):
            tail = (n,) if n else ()
            yield b + f"ffn_gate_{part}.weight", (embd, s["expert_ff"]) + tail, True
            yield b + f"ffn_up_{part}.weight", (embd, s["expert_ff"]) + tail, True
            yield b + f"ffn_down_{part}.weight", (s["expert_ff"], embd) + tail, True
        if i >= s["layers"]:
            yield b + "nextn.eh_proj.weight", (2 * embd, embd), True
            yield b + "nextn.enorm.weight", (embd,), False
            yield b + "nextn.hnorm.weight", (embd,), False


def product(dims):
    n = 1
    for d in dims:
        n *= d
    return n


def write(path, shape=SHAPE, seed=1, given=lambda name, dims: None):
    """given: a tensor's bytes where they are not to be random, or None."""
    draw = random.Random(seed)
    # a prime number of blocks: rows of no tensor repeat in step
    blocks = b"".join(struct.pack("<e", draw.uniform(0.004, 0.01)) + draw.randbytes(16) for _ in range(32749))
    listing, sizes, offset = [], [], 0
    for name, dims, quantised in tensors(shape):
        n = product(dims)
        size = n // 32 * 18 if quantised else 4 * n
        listing.append(text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims) +
                       struct.pack("<IQ", TENSOR_Q4_0 if quantised else TENSOR_F32, offset))
        sizes.append((name, dims, quantised, size))
        offset += (size + ALIGN - 1) // ALIGN * ALIGN
    pairs = metadata(shape)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(listing), len(pairs)) + b"".join(pairs) + b"".join(listing)
    with open(path, "wb") as out:
        out.write(head + b"\0" * (-len(head) % ALIGN))
        for name, dims, quantised, size in sizes:
            data = given(name, dims)
            if data is not None:
                assert len(data) == size
            elif quantised:
                begin = draw.randrange(32749) * 18
                data = (blocks[begin:] + blocks * (size // len(blocks) + 1))[:size]
            elif len(dims) == 1:
                data = struct.pack(f"<{dims[0]}f", *(draw.uniform(0.7, 1.3) for _ in range(dims[0])))
            else:
                data = struct.pack(f"<{product(dims)}f", *(draw.uniform(-0.1, 0.1) for _ in range(product(dims))))
            out.write(data + b"\0" * (-size % ALIGN))
