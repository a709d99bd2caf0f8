#!/usr/bin/env python3
"""Writes unicode.c: the code points of the categories L and N, as the tokenizer's splitting rule needs them.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install unicodedata2==15.1.0
    /tmp/venv/bin/python make_unicode.py > unicode.c

Unicode 15.1 is what llama.cpp uses.
"""

import unicodedata2

HEAD = """\
/* Written by make_unicode.py: categories of Unicode {version}. White space is what \\s matches there. */
#include "unicode.h"

struct range {{
    uint32_t first, last;
}};

/* clang-format off */"""

TAIL = """\
/* clang-format on */

static int inside(uint32_t point, const struct range *ranges, size_t n) {
    while (n > 1) { /* the range sought is the last one that does not begin behind the point */
        size_t half = n / 2;

        if (ranges[half].first <= point) {
            ranges += half;
            n -= half;
        } else {
            n = half;
        }
    }
    return ranges->first <= point && point <= ranges->last;
}

#define INSIDE(point, ranges) inside(point, ranges, sizeof(ranges) / sizeof *(ranges))

enum unicode_kind unicode_kind(uint32_t point) {
    if (INSIDE(point, letters)) {
        return UNICODE_LETTER;
    }
    if (INSIDE(point, numbers)) {
        return UNICODE_NUMBER;
    }
    return INSIDE(point, spaces) ? UNICODE_SPACE : UNICODE_OTHER;
}"""


def ranges(wanted):
    found = []
    for point in range(0x110000):
        if wanted(chr(point)):
            if found and found[-1][1] == point - 1:
                found[-1][1] = point
            else:
                found.append([point, point])
    return found


def table(name, wanted):
    print(f"static const struct range {name}[] = {{")
    line = "   "
    for first, last in ranges(wanted):
        item = f" {{0x{first:x}, 0x{last:x}}},"
        if len(line) + len(item) > 110:
            print(line)
            line = "   "
        line += item
    print(line + "\n};\n")


def main():
    print(HEAD.format(version=unicodedata2.unidata_version))
    table("letters", lambda c: unicodedata2.category(c)[0] == "L")
    table("numbers", lambda c: unicodedata2.category(c)[0] == "N")
    table("spaces", lambda c: c in "\t\n\v\f\r\x85" or unicodedata2.category(c)[0] == "Z")
    print(TAIL)


if __name__ == "__main__":
    main()
