#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Holds the imports of src/ to ci/imports.txt: which room may import which, and
# that no files import each other in a circle. What is wrong today is listed
# there as an exception; one that is no longer needed is an error too, so the
# list can only shrink.
#
#   ci/imports.py           check
#   ci/imports.py --graph   print every import, one a line
import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
SRC = TOP / "src"
# Macros are imported from the root, where lib.rs passes them on.
PASSED_ON = {"debug_log": ("debug",), "raw_syscall": ("rawsys",)}


def module_of(file):
    """The path of a file's module; the tool's begin with "bin"."""
    parts = list(file.relative_to(SRC).with_suffix("").parts)
    if parts[-1] in ("mod", "lib", "main"):
        parts.pop()
    return tuple(parts)


def without_prose(text):
    """Code without comments and strings."""
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"\bpub\([^)]*\)", "pub", text)
    return re.sub(r'"(\\.|[^"\\])*"', '""', text)


def after_braces(text, start):
    """Where the braces end whose first one stands before `start`."""
    depth = 1
    while depth and start < len(text):
        depth += {"{": 1, "}": -1}.get(text[start], 0)
        start += 1
    return start


def inline_modules(text):
    """Where modules begin and end that have no file of their own, and their names."""
    return [
        (match.end(), after_braces(text, match.end()), match.group(1))
        for match in re.finditer(r"\bmod (\w+)\s*\{", text)
    ]


def paths(text, module):
    """Every path that begins with crate, super, self or xpmem, braces resolved, and
    the module it stands in. Tests may import what they like."""
    inside = inline_modules(text)
    for match in re.finditer(r"\b(?:crate|super|self|xpmem)(?:::\w+)*(?:::\{)?", text):
        names = tuple(name for start, end, name in inside if start <= match.start() < end)
        if "tests" in names:
            continue
        word = match.group(0)
        if not word.endswith("{"):
            yield module + names, word.split("::")
            continue
        body = text[match.end() : after_braces(text, match.end()) - 1]
        for path in group(word[: -len("::{")].split("::"), body):
            yield module + names, path


def group(head, body):
    item, depth = "", 0
    for letter in body + ",":
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter != "," or depth:
            item += letter
            continue
        item = re.sub(r"\s+as\s+\w+", "", item).strip()
        if "{" in item:
            inner, rest = item.split("::{", 1)
            yield from group(head + inner.split("::"), rest[: rest.rindex("}")])
        elif item:
            yield head + item.split("::")
        item = ""


def absolute(path, module):
    first, rest = path[0], path[1:]
    here = list(module)
    if first == "crate" and module[:1] == ("bin",):
        here = ["bin", "xpmem"]
    elif first in ("crate", "xpmem"):
        here = []
    elif first == "super":
        here = here[:-1]
        while rest and rest[0] == "super":
            here, rest = here[:-1], rest[1:]
    full = tuple(here + rest)
    return PASSED_ON.get(full[0], full) if full else full


def graph():
    """Of each file: the files that it imports."""
    files = {module_of(f): f for f in sorted(SRC.rglob("*.rs"))}
    edges = {}
    for module, file in files.items():
        found = set()
        for where, path in paths(without_prose(file.read_text()), module):
            target = absolute(path, where)
            while target and target not in files:
                target = target[:-1]
            if target and target != module:
                found.add(target)
        edges[module] = found
    return edges


def circles(edges):
    """Groups of modules that reach each other (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for to in edges[node]:
            if to not in index:
                visit(to)
            if to in stack:
                low[node] = min(low[node], low[to])
        if low[node] == index[node]:
            at = stack.index(node)
            members = stack[at:]
            del stack[at:]
            if len(members) > 1:
                found.append(members)

    for node in edges:
        if node not in index:
            visit(node)
    return found


def rules():
    allowed, exceptions = {}, set()
    for line in (TOP / "ci/imports.txt").read_text().splitlines():
        words = line.split("#")[0].replace(":", " ").split()
        if words and words[0] == "except":
            exceptions.add(tuple(words[1:]))
        elif words:
            allowed[words[0]] = set(words[1:])
    return allowed, exceptions


def main():
    edges = graph()
    show = "/".join
    if "--graph" in sys.argv:
        for module in edges:
            for to in sorted(edges[module]):
                print(show(module) or "lib", show(to))
        return 0
    allowed, exceptions = rules()
    wrong = []

    def room(module):
        for length in range(len(module), 0, -1):
            if show(module[:length]) in allowed:
                return show(module[:length])
        return None

    found = set()
    for module in edges:
        if not module:
            continue  # lib.rs passes names on.
        if room(module) is None:
            wrong.append(f"{show(module)}: in no room of ci/imports.txt")
            continue
        for to in edges[module]:
            here, there = room(module), room(to)
            if there not in allowed[here] | {here}:
                whole = (here, there)
                found.add(whole if whole in exceptions else (show(module), there))
    for circle in circles({m: t - {()} for m, t in edges.items() if m}):
        for module in circle:
            whole = (room(module), "circle")
            found.add(whole if whole in exceptions else (show(module), "circle"))
    wrong += [f"{a} imports {b}" if b != "circle" else f"{a} is in a circle" for a, b in sorted(found - exceptions)]
    wrong += [f"an exception that is no longer needed: {' '.join(e)}" for e in sorted(exceptions - found)]
    print("\n".join(wrong) or f"{len(edges)} files, {len(exceptions)} exceptions")
    return 1 if wrong else 0


sys.exit(main())
