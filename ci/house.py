#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Rules of the house that no compiler holds, for src/: no file beyond 400 lines, no
# function beyond five parameters beside self, and where `unsafe` may stand at all. What is beyond is listed here, and the lists may only shrink.
import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
SRC = TOP / "src"
LINES = 400
PARAMETERS = 5

# Files that are longer, and by how much at most.
LONG = {
}
# Functions that take what a system call or a frozen interface takes.
WIDE = {
    ("capi/hwloc.rs", "hwloc_shmem_topology_write"),
    ("capi/hwloc.rs", "hwloc_shmem_topology_adopt"),
    ("hwloc/write.rs", "write"),
    ("rawsys.rs", "syscall6"),
    ("user/program/scratch.rs", "map"),
    ("user/sys/held.rs", "map"),
    ("user/sys/mem.rs", "map"),
}
# Where `unsafe` may stand, and the folders' files above it, whose promise to have
# none would count for them too. src/hwloc is written over C's structures: there it
# may stand anywhere.
UNSAFE = {
    "api.rs": "functions that trust the caller",
    "backtrace.rs": "the unwinder's symbol",
    "bin/xpmem/main.rs": None,
    "bin/xpmem/sys.rs": "system calls of the tool",
    "capi/hwloc.rs": "C's pointers",
    "capi/mod.rs": "C's pointers",
    "capi/xpmem.rs": "C's pointers",
    "debug.rs": "a path that is written once",
    "environment.rs": "libc's getenv",
    "fd.rs": "system calls",
    "lib.rs": None,
    "process.rs": "a page that forks wipe",
    "rawsys.rs": "system calls",
    "uapi.rs": "structures of the ABI",
    "user/arena/mapping.rs": "state in a mapping",
    "user/hooks/text.rs": "libc's instructions",
    "user/hooks/text/aarch64.rs": "jumps into the library",
    "user/hooks/text/x86_64.rs": "jumps into the library",
    "user/program/alarm.rs": "a signal's handler",
    "user/program/waits.rs": "instructions that a thread is led to",
    "user/service/boot.rs": "what is all zero is valid",
    "user/service/start.rs": "a handler of the program's exit",
    "user/sys/clone.rs": "a task on other memory",
    "user/sys/file.rs": "system calls",
    "user/sys/held.rs": "changes of memory",
    "user/sys/inject.rs": "words of a test",
    "user/sys/mem.rs": "system calls",
    "user/sys/message.rs": "system calls",
    "user/sys/net.rs": "system calls",
    "user/sys/valgrind.rs": "a request to valgrind",
    "user/arena/mod.rs": "what is all zero is valid",
    "user/sys/mod.rs": "system calls",
    "user/hooks/mod.rs": None,
    "user/program/mod.rs": None,
    "user/service/mod.rs": None,
    "user/mod.rs": None,
}
PROMISE = re.compile(r"^#!\[(?:cfg_attr\(not\(test\), )?forbid\(unsafe_code\)\)?\]", re.M)


def parameters(text):
    """Each function's name, and how many parameters it has beside self."""
    for match in re.finditer(r"\bfn (\w+)(?:<[^(]*>)?\s*\(", text):
        depth, at, item, found = 1, match.end(), "", []
        while depth:
            letter = text[at]
            arrow = letter == ">" and text[at - 1] == "-"
            depth += 0 if arrow else {"(": 1, "[": 1, "<": 1, "{": 1, ")": -1, "]": -1, ">": -1, "}": -1}.get(letter, 0)
            if depth == 1 and letter == ",":
                found.append(item)
                item = ""
            else:
                item += letter if depth else ""
            at += 1
        found = [part.strip() for part in found + [item] if part.strip()]
        selfless = [part for part in found if not re.fullmatch(r"(?:&(?:'\w+ )?)?(?:mut )?self", part)]
        yield match.group(1), len(selfless)


def main():
    wrong, wide, long, trusted = [], set(), set(), set()
    for file in sorted(SRC.rglob("*.rs")):
        name, text = str(file.relative_to(SRC)), file.read_text()
        code = re.sub(r"//[^\n]*", "", text)
        lines = text.count("\n")
        if lines > LINES:
            long.add(name)
        if lines > LONG.get(name, LINES):
            wrong.append(f"{name}: {lines} lines")
        for function, count in parameters(code):
            if count > PARAMETERS:
                wide.add((name, function))
        if "too_many_arguments" in code:
            wrong.append(f"{name}: too_many_arguments is allowed")
        if not name.startswith("hwloc/"):
            if not PROMISE.search(text):
                trusted.add(name)
    wrong += [f"{name}: {function} has more than {PARAMETERS} parameters" for name, function in sorted(wide - WIDE)]
    wrong += [f"{name}: no forbid(unsafe_code)" for name in sorted(trusted - UNSAFE.keys())]
    wrong += [f"an exception that is no longer needed: {name}" for name in sorted(LONG.keys() - long)]
    wrong += [f"an exception that is no longer needed: {name} {function}" for name, function in sorted(WIDE - wide)]
    wrong += [f"an exception that is no longer needed: {name}" for name in sorted(UNSAFE.keys() - trusted)]
    print("\n".join(wrong) or f"{len(LONG)} long files, {len(WIDE)} wide functions, {len(UNSAFE)} files that may have unsafe")
    return 1 if wrong else 0


sys.exit(main())
