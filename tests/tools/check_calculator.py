#!/usr/bin/env python3
"""Random expressions, worked out by the calculator and by Python: check_calculator.py CALCULATOR_LINES [SEED].

Rational ones with `fractions`, so that every printed digit is compared; roots, logarithms, powers, sines
and arc tangents with `decimal` at 80 digits, rounded half-even to 20."""
import random
import re
import subprocess
import sys
from decimal import Decimal, ROUND_HALF_EVEN, getcontext
from fractions import Fraction
from math import comb, factorial, gcd

getcontext().prec = 80
CHECKS = 4000


class TooBig(Exception):
    pass


def number(r):
    kind = r.randrange(6)
    if kind == 0:
        n = r.randrange(10 ** r.randrange(1, 30))
        return f"{n}", Fraction(n), 9
    if kind == 1:
        n = r.randrange(10 ** 9)
        return f"{n:,}", Fraction(n), 9
    if kind == 2:
        text = f"{r.randrange(1000)}.{r.randrange(10 ** 6):06d}"
        return text, Fraction(text), 9
    if kind == 3:
        text = f"{r.randrange(1, 100)}e{r.randrange(-20, 20)}"
        return text, Fraction(text), 9
    n = r.randrange(20)
    return f"{n}", Fraction(n), 9


def wrap(part, least):
    text, value, level = part
    return (f"({text})" if level < least else text), value


def rational(r, depth):
    """(text, value, level): levels sum 1, product 2, sign 3, power 4, postfix 5, primary 9."""
    if depth == 0 or r.random() < 0.1:
        return number(r)
    kind = r.randrange(13)
    a = rational(r, depth - 1)
    if kind < 6:
        b = rational(r, depth - 1)
        op = "+-*/%" [kind] if kind < 5 else "//"
        sums = op in "+-"
        left, x = wrap(a, 1 if sums else 2)
        right, y = wrap(b, 2 if sums else 4)
        if sums and right.endswith("%"):
            right = f"({right})"
        space = r.choice(["", " "])
        if not sums and y == 0 and op != "*":
            raise TooBig
        value = {"+": lambda: x + y, "-": lambda: x - y, "*": lambda: x * y, "/": lambda: x / y, "%": lambda: x % y,
                 "//": lambda: Fraction(x // y)}[op]()
        return f"{left}{space}{op}{space}{right}", value, 1 if sums else 2
    if kind == 6:
        text, x = wrap(a, 3)
        return f"-{text}", -x, 3
    if kind == 7:
        text, x = wrap(a, 9)
        n = r.randrange(-9, 10)
        if (x == 0 and n < 0) or x.numerator.bit_length() + x.denominator.bit_length() > 3000:
            raise TooBig
        return f"{text}^{n}", x ** n, 4
    if kind == 8:
        n = r.randrange(30)
        return f"{n}!", Fraction(factorial(n)), 5
    if kind == 9:
        text, x = wrap(a, 9)
        return f"{text}%", x / 100, 5
    if kind == 10:
        name = r.choice(["floor", "ceil", "trunc", "abs", "round"])
        text, x, _ = a
        half = (abs(x) * 2 + 1) // 2 * (1 if x >= 0 else -1)
        value = {"floor": x.__floor__(), "ceil": x.__ceil__(), "trunc": x.__trunc__(), "abs": abs(x), "round": half}[name]
        # within arguments a comma separates them
        return f"{name}({re.sub(r',(?=[0-9])', '', text)})", Fraction(value), 9
    if kind == 11:
        n, k = r.randrange(60), r.randrange(60)
        return f"comb({n}, {k})", Fraction(comb(n, k)), 9
    n, k = r.randrange(1, 10 ** 6), r.randrange(1, 10 ** 6)
    return (f"gcd({n}, {k})", Fraction(gcd(n, k)), 9) if r.random() < 0.5 else (
        f"max({n}, {k}, {n}/{k})", max(Fraction(n), Fraction(k), Fraction(n, k)), 9)


def digits20(q):
    """(sign, digits without trailing zeros, exponent) of a Fraction rounded half-even to 20 digits."""
    if q == 0:
        return 0, "0", 0
    sign, q = (-1, -q) if q < 0 else (1, q)
    exponent = len(str(q.numerator)) - len(str(q.denominator)) + 1
    while True:
        scaled = q * Fraction(10) ** (19 - exponent)
        n = round(scaled)  # half-even
        if len(str(n)) >= 20:
            exponent += len(str(n)) - 20
            return sign, str(n).rstrip("0"), exponent
        exponent -= 1


def of_text(text):
    d = Decimal(text)
    sign, digits, exponent = d.as_tuple()
    digits = "".join(map(str, digits)).lstrip("0")
    if not digits:
        return 0, "0", 0
    return (-1 if sign else 1), digits.rstrip("0"), len(digits) - 1 + exponent


def sine(x):
    pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534")
    x = x.remainder_near(2 * pi)
    term, total, n = x, x, 1
    while abs(term) > Decimal("1e-75"):
        term = -term * x * x / ((n + 1) * (n + 2))
        total += term
        n += 2
    return total


def arc_tangent(x):
    steps = 0
    while abs(x) > Decimal("0.05"):
        x = x / (1 + (1 + x * x).sqrt())
        steps += 1
    term, total, n = x, x, 1
    while abs(term) > Decimal("1e-76"):
        term = -term * x * x
        n += 2
        total += term / n
    return total * 2 ** steps


def real(r):
    text = f"{r.randrange(1, 10 ** r.randrange(1, 8))}.{r.randrange(1, 10 ** 5):05d}"
    x = Decimal(text)
    kind = r.randrange(7)
    if kind == 0:
        return f"sqrt({text})", x.sqrt()
    if kind == 1:
        return f"ln({text})", x.ln()
    if kind == 2:
        return f"log({text})", x.log10()
    if kind == 3:
        small = Decimal(r.randrange(-10 ** 6, 10 ** 6)) / 10 ** 4
        return f"exp({small})", small.exp()
    if kind == 4:
        y = Decimal(r.randrange(1, 10 ** 5)) / 1000
        return f"{text}^{y}", (y * x.ln()).exp()
    if kind == 5:
        return f"sin({text})", sine(x)
    return f"atan({text})", arc_tangent(x)


def check_rational(text, value, answer):
    assert answer.startswith("= "), f"{text}: {answer}"
    shown = answer[2:]
    if " (N%" in shown:
        shown = shown[:shown.index(" (N%")]
    head, _, note = shown.partition(" (")
    if not note:
        assert Fraction(head) == value, f"{text}: {shown}, not {value}"
        return
    assert of_text(head) == digits20(value), f"{text}: {shown}, not {value}"
    if "exactly" in note:
        assert Fraction(note[note.index("exactly ") + 8:-1]) == value, f"{text}: {shown}"


def main():
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 20250101
    r = random.Random(seed)
    wanted = []
    while len(wanted) < CHECKS:
        try:
            text, value, _ = rational(r, r.randrange(1, 6))
        except TooBig:
            continue
        if len(text) < 4000 and value.numerator.bit_length() < 90000 and value.denominator.bit_length() < 90000:
            wanted.append((text, value))
    wanted += [real(r) for _ in range(CHECKS // 4)]
    lines = "".join(text + "\n" for text, _ in wanted)
    answers = subprocess.run([sys.argv[1]], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(answers) == len(wanted), (len(answers), len(wanted))
    for (text, value), answer in zip(wanted, answers):
        if isinstance(value, Fraction):
            check_rational(text, value, answer)
        else:
            with_20 = value.quantize(Decimal(1).scaleb(value.adjusted() - 19), rounding=ROUND_HALF_EVEN)
            head = answer[2:].partition(" (")[0]
            assert of_text(head) == of_text(str(with_20)), f"{text}: {answer}, not {with_20}"
    print(f"{len(wanted)} expressions agree (seed {seed})")


main()
