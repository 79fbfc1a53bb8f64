#!/usr/bin/env python3
"""Compiles the CUDA kernels for every target and reads what ptxas says of them.

    cuda_table.py --write     the table of docs/cuda.md (needs nvcc; some minutes)
    cuda_table.py --compile   fails if a kernel spills registers (skipped without nvcc: exit code 77)
    cuda_table.py             fails if the table was made of other sources than these
"""
import argparse, concurrent.futures, hashlib, os, pathlib, re, shutil, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER, DOC = ROOT / 'engine' / 'cuda', ROOT / 'docs' / 'cuda.md'
TARGETS = ['80', '90', '100', '120']
BEGIN, END = '<!-- made by scripts/cuda_table.py --write -->\n', '<!-- end -->\n'
NVCC = shutil.which('nvcc') or shutil.which('/usr/local/cuda/bin/nvcc')

# Cards, for arithmetic: GB/s, processors, GHz, float32 operations a clock and processor (an FMA counts as one),
# dp4a the same, int8 multiply-adds of the tensor cores the same. From the makers' data sheets.
CARDS = {'A100 80 GB': (2039, 108, 1.41, 64, 64, 2048), 'H100 SXM': (3350, 132, 1.755, 128, 64, 4096),
         'B200': (8000, 148, 1.85, 128, 64, 8192), 'RTX 5090': (1792, 170, 2.41, 128, 64, 1024)}
# What one unit of a kernel's work costs by its source: bytes from memory; lane operations in float32 and
# integers (loads and unpacking too); dp4a; multiply-adds of the tensor cores.
WORK = [
    ('matvec Q4_K, 1 row', 'block of 32 weights', 18, 36, 8, 0),
    ('matvec Q4_K, 8 rows', 'block of 32 weights', 18, 30 + 8 * 8, 64, 0),
    ('matvec Q6_K, 1 row', 'block of 32 weights', 26.25, 56, 8, 0),
    ('matvec Q2_K, 1 row', 'block of 32 weights', 10.5, 38, 8, 0),
    ('matvec Q3_K, 1 row', 'block of 32 weights', 13.75, 54, 8, 0),
    ('matvec IQ4_XS, 1 row', 'block of 32 weights', 17, 68, 8, 0),
    ('matvec MXFP4, 1 row', 'block of 32 weights', 17, 64, 8, 0),
    ('matvec IQ3_S, 1 row', 'block of 32 weights', 13.75, 118, 8, 0),
    ('matvec IQ2_XXS, 1 row', 'block of 32 weights', 8.75, 84, 8, 0),
    ('matvec IQ1_M, 1 row', 'block of 32 weights', 7, 72, 8, 0),
    ('matvec Q8_0, 1 row', 'block of 32 weights', 34, 18, 8, 0),
    ('matvec F16, 1 row', '8 weights', 16, 8 * 3, 0, 0),
    ('matmul Q4_K, 64 rows', 'block of 32 weights', 18, 64 * 5 + 8, 0, 64 * 32),
    ('matmul Q2_K, 64 rows', 'block of 32 weights', 10.5, 64 * 14 + 12, 0, 64 * 32),
    ('matmul IQ4_XS, 64 rows', 'block of 32 weights', 17, 64 * 4 + 20, 0, 64 * 32),
    ('matmul Q8_0, 64 rows', 'block of 32 weights', 34, 64 * 4 + 8, 0, 64 * 32),
    ('attention f16, 7 heads, dim 128', 'position and KV head', 512, 128 * (2 + 8 + 2) + 128 * (2 + 8 + 2), 0, 0),
    ('attention f16, tiles of 16 queries', '16 queries by a position', 512 / 32, 128 * (3 + 16 + 4) * 2, 0, 0),
    ('latent attention f16, 128 heads', 'position, all heads', 1152, 128 * (576 + 512) * 1.25, 0, 0),
    ('index_score f16, 64 heads of 128', 'position', 256, 64 * 128 * 1.4, 0, 0),
    ('top_k', 'position', 4, 5 * 14, 0, 0),
    ('rms_norm, add, gate, rope, quantise', 'float', 12, 30, 0, 0),
    ('sample_top', 'id', 4, 20, 0, 0),
    ('sample_weigh', 'id', 8, 60, 0, 0),
    ('sample_pick', 'id', 8, 30, 0, 0),
]


def digest():
    h = hashlib.sha256()
    for path in sorted(FOLDER.glob('*.cu')) + sorted(FOLDER.glob('*.cuh')) + [FOLDER / 'kernels.h', ROOT / 'engine' / 'grids.inc']:
        h.update(path.name.encode() + b'\0' + path.read_bytes())
    return h.hexdigest()[:16]


def compiled(job):
    """{kernel: (registers, shared bytes, spilled bytes)} of a file for a target."""
    path, target = job
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([NVCC, '-std=c++17', '-fmad=false', f'-I{ROOT}', f'-arch=sm_{target}', '-cubin', '-Xptxas',
                               '-v', str(path), '-o', os.path.join(folder, 'out')], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{path.name} for sm_{target} does not compile:\n{done.stderr}')
    out, name, spilled = {}, None, 0
    for line in done.stderr.splitlines():
        if m := re.search(r"Compiling entry function 'weft_cuda_(\w+)'", line):
            name = m[1]
        elif m := re.search(r'(\d+) bytes spill stores, (\d+) bytes spill loads', line):
            spilled = int(m[1]) + int(m[2])
        elif m := re.search(r'Used (\d+) registers', line):
            shared = re.search(r'(\d+) bytes smem', line)
            out[name] = (int(m[1]), int(shared[1]) if shared else 0, spilled)
    return path, target, out


def compile_all(jobs):
    table = {}
    files = [p for p in sorted(FOLDER.glob('*.cu')) if p.name != 'kernels.cu']
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for path, target, kernels in pool.map(compiled, [(p, t) for p in files for t in TARGETS]):
            for name, numbers in kernels.items():
                table.setdefault((path.name, name), {})[target] = numbers
    return table


def group_of(name):
    """Kernels that differ in format alone share a row."""
    return re.sub(r'_(q8_0|q8|q4|q4m|q5|q5m|q4k|q5k|q6k|q2k|q3k|n4|n4k|mx4|nv4|iq1|iq2xxs|iq2xs|iq2s|iq3xxs|iq3s|q2|q1|f16|bf16|f32)(?=_\d+$|$)', '_*', name)


def span(values):
    return f'{min(values)}' if min(values) == max(values) else f'{min(values)}-{max(values)}'


def table_text(table):
    rows = {}
    for (path, name), by_target in table.items():
        rows.setdefault((path, group_of(name)), []).append(by_target)
    text = f'Sources {digest()}, nvcc {version()}; {len(table)} kernels, {sum(n[2] for t in table.values() for n in t.values())} bytes spilled.\n\n'
    text += '| file | kernel | registers sm_80 | sm_90 | sm_100 | sm_120 | static shared memory | spilled |\n'
    text += '|---|---|---|---|---|---|---|---|\n'
    for (path, name), kernels in sorted(rows.items()):
        registers = ' | '.join(span([k[t][0] for k in kernels]) for t in TARGETS)
        shared = span([k[t][1] for k in kernels for t in TARGETS])
        spilled = sum(k[t][2] for k in kernels for t in TARGETS)
        text += f'| {path} | {name} | {registers} | {shared} | {spilled} |\n'
    return text


def share_text():
    text = '\nCalculated, not measured: the share of a card\'s bandwidth that a kernel can reach, were nothing but the larger\n'
    text += 'of its floors in the way (bytes over bandwidth; lane operations, dp4a and tensor operations over their rates, lane\n'
    text += 'operations counted by hand in the source). Where it is below 100 %, the share of what bounds it is 100 %.\n\n'
    text += '| kernel | unit of work | bytes | lane operations, dp4a, tensor | ' + ' | '.join(CARDS) + ' |\n'
    text += '|---|---|---|---|' + '---|' * len(CARDS) + '\n'
    for name, unit, size, lanes, dp4a, tensor in WORK:
        cells = []
        for bandwidth, processors, clock, lane_rate, dp4a_rate, tensor_rate in CARDS.values():
            memory = size / bandwidth
            floors = {'float': lanes / lane_rate, 'dp4a': dp4a / dp4a_rate, 'tensor': tensor / tensor_rate}
            bound = max(floors, key=floors.get)
            other = floors[bound] / (processors * clock)
            cells.append('100 %' if other <= memory else f'{100 * memory / other:.0f} % ({bound})')
        text += f'| {name} | {unit} | {size:g} | {lanes:g}, {dp4a}, {tensor} | ' + ' | '.join(cells) + ' |\n'
    return text


def version():
    return re.search(r'release ([\d.]+)', subprocess.run([NVCC, '--version'], capture_output=True, text=True).stdout)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--write', action='store_true')
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--jobs', type=int, default=2)
    args = parser.parse_args()
    doc = DOC.read_text()
    if not (args.write or args.compile):
        if f'Sources {digest()}' not in doc:
            sys.exit('docs/cuda.md tells of other kernels than engine/cuda has: run scripts/cuda_table.py --write')
        return
    if not NVCC:
        print('no nvcc: the kernels are not compiled for devices here')
        sys.exit(77)
    table = compile_all(args.jobs)
    spilled = [f'{name} (sm_{t}): {n[2]} bytes' for (_, name), by in table.items() for t, n in by.items() if n[2]]
    if spilled:
        sys.exit('registers are spilled:\n' + '\n'.join(spilled))
    if args.write:
        before, rest = doc.split(BEGIN)
        DOC.write_text(before + BEGIN + table_text(table) + share_text() + END + rest.split(END)[1])


if __name__ == '__main__':
    main()
