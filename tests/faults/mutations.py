"""Damage to files: bytes of any file, values of JSON and YAML."""

import json
import math

EXTREMES = (-1, 0, 10**14, 1e308, math.nan, math.inf, True, None, "", "x", [], {}, [[]], "\x1b[31m")


def damage(content, rng, others, text):
    """``(words, bytes)``: one random damage of a file's content.

    Parameters
    ----------
    content : bytes
    rng : random.Random
    others : list of bytes
        Contents of other files, which may take its place.
    text : bool
        A text: values are changed, too.
    """
    kinds = [_flip, _truncate, _cut, _double, _insert, _zero, _empty]
    if text:
        kinds += [_line, _value, _value, _value]
    kind = rng.choice(kinds)
    if rng.random() < 0.04:
        return "another file", rng.choice(others)
    changed = kind(content, rng)
    return kind.__name__[1:], changed


def _place(content, rng):
    return rng.randrange(len(content) + 1)


def _flip(content, rng):
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 4))):
        if changed:
            # Headers matter most: half of the places are near the beginning.
            limit = len(changed) if rng.random() < 0.5 else min(len(changed), 200)
            changed[rng.randrange(limit)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(content, rng):
    return content[: _place(content, rng)]


def _cut(content, rng):
    start = _place(content, rng)
    return content[:start] + content[start + rng.choice((1, 4, 64)) :]


def _double(content, rng):
    start = _place(content, rng)
    part = content[start : start + rng.choice((1, 8, 256))]
    return content[:start] + part + content[start:]


def _insert(content, rng):
    start = _place(content, rng)
    return content[:start] + bytes(rng.randrange(256) for _ in range(8)) + content[start:]


def _zero(content, rng):
    start = _place(content, rng)
    part = content[start : start + rng.choice((4, 32))]
    return content[:start] + bytes(len(part)) + content[start + len(part) :]


def _empty(content, rng):
    return b""


def _line(content, rng):
    """A line lost, doubled, or moved to the end."""
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    index = rng.randrange(len(lines))
    line = lines.pop(index)
    return b"".join(
        rng.choice((lines, lines[:index] + [line, line] + lines[index:], [*lines, line]))
    )


def _value(content, rng):
    """One value of a JSON file replaced by one of another kind, or a key lost."""
    try:
        value = json.loads(content)
    except ValueError:
        return _line(content, rng)
    places = []

    def walk(holder):
        items = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, inner in items:
            places.append((holder, key))
            if isinstance(inner, (dict, list)):
                walk(inner)

    if not isinstance(value, (dict, list)) or not value:
        return b"[]"
    walk(value)
    holder, key = rng.choice(places)
    if isinstance(holder, dict) and rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = rng.choice(EXTREMES)
    return json.dumps(value).encode()
