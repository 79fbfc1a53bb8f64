#!/usr/bin/env python3
"""Does each barrier, shuffle and vote of the CUDA kernels matter to a test?

Removes them one at a time in a copy of a kernel file, compiles the copy as a shared object that takes the
kernels' place under the shim, and runs the subject's test, which must then fail. Usage:
    mutate.py --tests BUILD/tests/cuda [--every N] [--only TEXT] [--jobs N]
--every N: only each N-th removal (the quick sample of ./check). Prints what survives; exits 1 if anything does.
"""
import argparse, concurrent.futures, os, pathlib, re, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'engine' / 'cuda'
# Which test shows what; and whose kernels use a header's: one of their tests must fail.
TESTS = {'attention': 'attention', 'element': 'products', 'experts': 'experts', 'index': 'latent', 'kv': 'element',
         'latent': 'latent', 'matmul': 'products', 'matvec': 'products', 'norm': 'element',
         'quantise': 'products', 'rope': 'element', 'sample': 'sample'}
USES = {'device.cuh': ['norm', 'quantise', 'kv', 'sample']}


def closing(text, at):
    """Index of the parenthesis that closes the one at `at`."""
    depth = 0
    for i in range(at, len(text)):
        depth += {'(': 1, ')': -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise ValueError('unbalanced parentheses')


def removals(path):
    """(line, what, text of the file without it) for each."""
    text = path.read_text()
    for m in re.finditer(r'__(syncthreads|syncwarp|shfl\w*_sync|ballot_sync)\(', text):
        end = closing(text, m.end() - 1)
        inside = text[m.end():end]
        parts = [p.strip() for p in re.split(r',(?![^(]*\))', inside)]
        if m[1].startswith('shfl'):
            new = f'({parts[1]})'
        elif m[1] == 'ballot_sync':
            new = f'({",".join(parts[1:])} ? ALL : 0)'
        else:
            new = '((void)0)'
        yield text.count('\n', 0, m.start()) + 1, m[0] + inside + ')', text[:m.start()] + new + text[end + 1:]


def all_removals():
    for path in sorted(FOLDER.glob('*.cu')) + sorted(FOLDER.glob('*.cuh')):
        for line, what, text in removals(path):
            yield path, line, what, text


def survives(tests, removal):
    """None if a test failed as it should; otherwise what is wrong."""
    wrong = None
    for subject in USES.get(removal[0].name, [removal[0].stem]):
        wrong = passes(tests, removal, subject)
        if not wrong:
            break
    return wrong


def passes(tests, removal, subject):
    path, line, what, text = removal
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / 'engine' / 'cuda'
        copy.mkdir(parents=True)
        (copy / path.name).write_text(text)
        unit, out = copy / 'unit.c', copy / 'unit.so'
        unit.write_text(f'#include "tests/cuda/shim.h"\n#include "engine/cuda/{subject}.cu"\n'
                        'SHIM_LIST(shim_replaced)\n')
        done = subprocess.run(['cc', '-std=gnu17', '-O1', '-D_GNU_SOURCE', '-ffp-contract=off', '-w', '-fPIC', '-shared',
                               f'-I{folder}', f'-I{ROOT}', str(unit), '-o', str(out)], capture_output=True, text=True)
        if done.returncode:
            return f'{path.name}:{line}: the copy without {what} does not compile:\n{done.stderr[:2000]}'
        env = dict(os.environ, WEFT_SHIM_KERNELS=str(out))
        try:
            done = subprocess.run([str(pathlib.Path(tests) / f'test_cuda_{TESTS[subject]}')], env=env,
                                  capture_output=True, timeout=120)
        except subprocess.TimeoutExpired:
            return None
        return None if done.returncode else f'{path.name}:{line}: nothing fails without {what}'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--tests', required=True)
    parser.add_argument('--every', type=int, default=1)
    parser.add_argument('--only', default='')
    parser.add_argument('--jobs', type=int, default=2)
    args = parser.parse_args()
    chosen = [r for r in all_removals() if args.only in f'{r[0].name}:{r[1]}'][::args.every]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        wrong = [w for w in pool.map(lambda r: survives(args.tests, r), chosen) if w]
    print(*wrong, f'{len(chosen)} removals, {len(wrong)} not noticed', sep='\n')
    sys.exit(bool(wrong) or not chosen)


if __name__ == '__main__':
    main()
