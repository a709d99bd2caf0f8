"""Checks of the built library and of the sources that no compiler makes; see main() for the list.

usage: symbols.py --nm NM --objdump OBJDUMP --source DIR [--saboteur] SHARED STATIC
--saboteur: the libraries are the saboteur's, and each check must find something.
"""

import argparse
import pathlib
import re
import subprocess
import sys

# Registers that an object may use on x86-64, by the name of its member of the static library. VEX and EVEX
# encodings are known by their mnemonics' v; xmm of plain SSE2 is the baseline.
ISA_OBJECTS = {"avx2_": "avx2", "avx512_": "avx512", "neon_": "neon"}

INTRINSICS = re.compile(
    r"\b_mm\d*_\w+|\b__m(?:128|256|512)[id]?\b|\b__mmask\d+\b|__builtin_ia32_\w+"
    r"|\bv(?:ld|st)[1-4]q?_\w+|\bv\w+q_(?:n_)?[fsup](?:8|16|32|64)\b"
    r"|\b(?:float|u?int)\d+x\d+(?:x\d+)?_t\b|\bsv\w+_[fsu](?:8|16|32|64)(?:_[mxz])?\b"
    r"|\b(?:imm|emm|xmm|arm_neon|arm_sve)\w*\.h\b"
)
ISA_SOURCES = ["src/avx2/*.[ch]", "src/avx512/*.[ch]", "src/neon/*.[ch]"]
# Everything else.
PLAIN_SOURCES = ["src/*.[ch]", "src/common/*.[ch]", "src/scalar/*.[ch]", "tools/**/*.[ch]", "include/**/*.h"]


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def isa_of(member):
    """The ISA folder that an archive member was built from, or None for baseline code."""
    name = pathlib.PurePath(member).name  # a thin archive names its members by their paths
    return next((isa for prefix, isa in ISA_OBJECTS.items() if name.startswith(prefix)), None)


def check_exports(nm, shared):
    """The shared library exports attn_ symbols and nothing else."""
    names = [line.split()[-1] for line in run(nm, "-D", "--defined-only", shared).splitlines() if line]
    if "attn_version" not in names:
        yield f"{shared}: attn_version is not exported"
    for name in names:
        if not name.startswith("attn_"):
            yield f"{shared}: exports {name}"
        elif name.startswith("attn_backend_") and name != "attn_backend_list":
            yield f"{shared}: exports the internal {name}"


def check_globals(nm, static):
    """Every global symbol that the static library defines starts with attn_; an ISA object defines only backends and
    slots named after it and its tiers, none of it weak: a weak function compiled with ISA flags could be linked into
    baseline code."""
    member = ""
    for line in run(nm, "-g", "--defined-only", static).splitlines():
        if line.endswith(":"):
            member = line[:-1]
            continue
        if not line:
            continue
        _, kind, name = line.split()
        if not name.startswith("attn_"):
            yield f"{static}: {member} defines the global {name}"
        if kind in "wWvVu":
            yield f"{static}: {member} defines {name} weakly"
        isa = isa_of(member)
        if isa and not re.fullmatch(rf"attn_[a-z0-9_]+_{isa}[a-z0-9]*", name):
            yield f"{static}: {member} defines {name}, which is not named after {isa} or a tier of it"


def check_instructions(listing, static):
    """On x86-64: no ymm, zmm, mask register or VEX instruction outside the ISA objects, and no zmm or mask
    register in avx2's."""
    bans = {
        None: re.compile(r"%[yz]mm\d|%k[0-7]\b|^\s*v[a-z]"),
        "avx2": re.compile(r"%zmm\d|%k[0-7]\b|%[xy]mm(?:1[6-9]|2\d|3[01])\b"),
    }
    seen = {}
    member = function = ""
    for line in listing.splitlines():
        head = re.match(r"(\S+):\s+file format", line)
        if head:
            member = head.group(1)
            seen.setdefault(isa_of(member), set())
            continue
        label = re.match(r"[0-9a-f]+ <(.+)>:", line)
        if label:
            function = label.group(1)
            continue
        instruction = line.partition(":\t")[2]
        for register in ("ymm", "zmm"):
            if "%" + register in instruction:
                seen[isa_of(member)].add(register)
        ban = bans.get(isa_of(member))
        # verr, verw and vm* (virtualisation) start with a v and are not vector instructions, nor are used
        if ban and ban.search(instruction):
            yield f"{static}: {member}: {function}: {instruction.strip()}"
    # The checks above would pass on an empty disassembly: the ISA objects must show what they are for.
    for isa, register in (("avx2", "ymm"), ("avx512", "zmm")):
        if isa in seen and register not in seen[isa]:
            yield f"{static}: the {isa} object uses no {register}: is it compiled with its flags?"
    if None not in seen:
        yield f"{static}: no baseline object found"


def check_sources(source, patterns):
    """Intrinsics stand in the ISA folders only."""
    files = sorted(path for pattern in patterns for path in source.glob(pattern))
    if not files:
        yield f"{source}: no sources found"
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = INTRINSICS.search(line)
            if found:
                yield f"{path.relative_to(source)}:{number}: intrinsic outside an ISA folder: {found.group()}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nm", required=True)
    parser.add_argument("--objdump", required=True)
    parser.add_argument("--source", required=True, type=pathlib.Path)
    parser.add_argument("--saboteur", action="store_true")
    parser.add_argument("shared")
    parser.add_argument("static")
    args = parser.parse_args()

    found = {
        "exports": list(check_exports(args.nm, args.shared)),
        "globals": list(check_globals(args.nm, args.static)),
        "sources": list(check_sources(args.source, ISA_SOURCES if args.saboteur else PLAIN_SOURCES)),
    }
    listing = run(args.objdump, "-d", "--no-show-raw-insn", args.static)
    if "x86-64" in listing:
        found["instructions"] = list(check_instructions(listing, args.static))

    for check, problems in found.items():
        print(f"{check}: {len(problems)} problems", *problems[:20], sep="\n    ")
    if args.saboteur:
        sys.exit(0 if all(found.values()) else "a check did not find the saboteur")
    sys.exit(1 if any(found.values()) else 0)


if __name__ == "__main__":
    main()
