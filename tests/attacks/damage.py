"""Damage to bytes and texts, drawn from a seeded generator."""

import random

#: Texts that some reader, terminal, spreadsheet or page could act on.
NAMES = (
    "$x^{$",
    r"$\frac{$",
    "{{data}}",
    "</script><b>",
    "=HYPERLINK(1)",
    "@x",
    "-x",
    "+1",
    "a\x1b[31mred",
    "\x1b]0;title\x07",
    "tab\there",
    "日本語",
    "\U0001f600" * 40,
    "\u202eltr",
    "a" * 3000,
    "%d%s{0}{x}",
    "..",
    "/",
    "a/../b",
    "~",
    "NUL\x00x",
    "\ufeffbom",
    "half \udcff",
    "'\"`;$(id)",
    " ",
    "",
)
VALUES = (
    "", "~", "null", "010", "1:30", "-1", "0", "1e300", "-1e300", ".nan", ".inf", "9" * 5000, "true", "[]", "{}",
    "[1, [2, [3]]]", "!!bool abc", "!!int ''", "!!timestamp abc", "!!python/object:os.system [id]", "&a [*a]", "*b",
    "'", '"', "#", "{", "a: b: c", "\t", "2**62", "0x7fffffffffffffff", "4e-2", "{:0999999999d}", "{", "%s", "../..",
    "/dev/zero", "/dev/stdin", "/proc/self/mem", "[" * 3000, "- " * 3000, "\x00", "\ud800",
)  # fmt: skip


def damage_bytes(data: bytes, draw: random.Random) -> bytes:
    """The data with one of several kinds of damage."""
    if not data:
        return draw.randbytes(draw.randrange(64))
    at = draw.choice((draw.randrange(len(data)), draw.randrange(min(len(data), 512)), len(data) - 1))
    length = draw.choice((1, 4, 64, 4096))
    changed = bytearray(data)
    kind = draw.choice(("flip", "flips", "cut", "zeros", "insert", "remove", "ends", "repeat", "noise", "number"))
    if kind == "flip":
        changed[at] ^= 1 << draw.randrange(8)
    elif kind == "flips":
        for _ in range(draw.randrange(2, 200)):
            changed[draw.randrange(len(data))] = draw.randrange(256)
    elif kind == "cut":
        del changed[at:]
    elif kind == "zeros":
        changed[at : at + length] = bytes(len(changed[at : at + length]))
    elif kind == "insert":
        changed[at:at] = draw.randbytes(length)
    elif kind == "remove":
        del changed[at : at + length]
    elif kind == "ends":
        changed += draw.randbytes(length)
    elif kind == "repeat":
        changed[at:at] = changed[at : at + length]
    elif kind == "noise":
        changed = bytearray(draw.randbytes(draw.randrange(5000)))
    else:
        number = draw.choice((0, 2**31 - 1, 2**32 - 1, 2**62, 2**64 - 1)).to_bytes(8, "little")
        changed[at : at + 8] = number
    return bytes(changed)


def damage_text(text: str, draw: random.Random) -> bytes:
    """A text file with a damaged line, other line ends, another encoding, or damaged bytes."""
    lines = text.splitlines() or [""]
    kind = draw.choice(("line", "field", "twice", "ends", "bom", "encoding", "blanks", "long", "bytes", "empty"))
    at = draw.randrange(len(lines))
    if kind == "line":
        lines[at] = draw.choice(NAMES + VALUES)
    elif kind == "field":
        fields = lines[at].split(" ")
        fields[draw.randrange(len(fields))] = draw.choice(VALUES + NAMES)
        lines[at] = " ".join(fields)
    elif kind == "twice":
        lines.insert(at, lines[draw.randrange(len(lines))])
    elif kind == "ends":
        return "\r\n".join(lines).encode("utf-8", "replace")
    elif kind == "bom":
        return b"\xef\xbb\xbf" + text.encode()
    elif kind == "encoding":
        return (text + "é").encode(draw.choice(("latin-1", "utf-16", "utf-32")), "replace")
    elif kind == "blanks":
        lines[at] += " " * 20_000 + "x"
    elif kind == "long":
        lines *= 2000
    elif kind == "bytes":
        return damage_bytes(text.encode(), draw)
    else:
        lines = []
    return "\n".join(lines).encode("utf-8", "surrogatepass")
