#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Format, lints, licences, and that what is generated is what is committed.
. "$(dirname "$0")/../lib.sh"
cd "$TOP" || exit 1

if cargo fmt --version >/dev/null 2>&1; then
    run_case "rustfmt" 120 cargo fmt --check
else
    skip "rustfmt" "not installed"
fi
if cargo clippy --version >/dev/null 2>&1; then
    run_case "clippy" 900 cargo clippy --locked --all-targets -- -D warnings
else
    skip "clippy" "not installed"
fi
run_case "headers are what cbindgen makes" 600 cargo run --quiet --locked --example headers

# Links that lead nowhere, in what users read and in what is inside.
export RUSTDOCFLAGS="-D warnings"
run_case "rustdoc" 600 cargo doc --quiet --locked --no-deps --lib
run_case "rustdoc, with what is private" 600 \
    cargo doc --quiet --locked --no-deps --lib --document-private-items --target-dir "$SCRATCH/doc"
unset RUSTDOCFLAGS
run_case "imports" 60 ci/imports.py
run_case "lengths, parameters and unsafe" 60 ci/house.py
run_case "the oldest compiler, and the other architecture" 900 ci/oldest.sh

files() {
    if git rev-parse HEAD >/dev/null 2>&1; then
        git ls-files --cached
    else
        find . -type f ! -path './target/*' ! -path './build/*' ! -path './.git/*' | sed 's|^\./||'
    fi
}

mapfile -t scripts < <(files | while read -r file; do
    if [ -f "$file" ] && head -n 1 "$file" | grep -qE '^#!.*sh$|shellcheck shell=' || [[ $file == *.sh ]]; then
        echo "$file"
    fi
done)
if command -v shellcheck >/dev/null; then
    run_case "shellcheck" 300 shellcheck --severity=warning "${scripts[@]}"
else
    skip "shellcheck" "not installed"
fi
mapfile -t prose < <(files | grep -vE '^LICENSE|/COPYING$|/corpus/|\.lock$|\.xml$|\.bin$')
if command -v codespell >/dev/null; then
    run_case "spelling" 120 codespell --ignore-words ci/spelling.txt "${prose[@]}"
else
    skip "spelling" "codespell is not installed"
fi
if command -v mandoc >/dev/null; then
    run_case "manual pages" 60 mandoc -T lint -W warning man/*
else
    skip "manual pages" "mandoc is not installed"
fi

# Each link of a document to another file leads to one.
links() {
    local bad=0 file link
    while read -r file; do
        case $file in *.md) ;; *) continue ;; esac
        while read -r link; do
            case $link in http:* | https:* | '#'* | mailto:*) continue ;; esac
            [ -e "$(dirname "$file")/${link%%#*}" ] || { echo "$file: no $link"; bad=1; }
        done < <(grep -oE '\]\([^)]+\)' "$file" | sed 's/^](//; s/)$//')
    done < <(files)
    return $bad
}
export -f links

# Each file of ours says its licence within the first lines; kernel/ is
# GPL-2.0-only, all the rest MIT OR Apache-2.0.
spdx() {
    local bad=0 file wanted
    while read -r file; do
        [ -f "$file" ] || continue
        case $file in
        LICENSE-* | */COPYING | Cargo.lock | */Cargo.lock | */corpus/* | .gitignore | */.gitignore | *.md) continue ;;
        ci/packages.d/* | *.bin | *.xml | *.gz | *.xz | */compat | */changelog) continue ;;
        kernel/uapi/*) wanted='GPL-2.0' ;;
        kernel/* | tests/vm/*.config) wanted='GPL-2.0-only' ;;
        *) wanted='MIT OR Apache-2.0' ;;
        esac
        if ! head -n 5 "$file" | grep -q "SPDX-License-Identifier: .*$wanted"; then
            echo "$file: no SPDX line with $wanted"
            bad=1
        fi
    done < <(files)
    return $bad
}
export -f spdx files
run_case "links between documents" 60 bash -c links
run_case "SPDX lines" 60 bash -c spdx

# No more than the layout rules allow: no 1000-line files of code.
longest() {
    local bad=0 file
    while read -r file; do
        case $file in
        *.rs | *.c | *.h | *.sh | *.py)
            if [ "$(wc -l <"$file")" -gt 1000 ]; then
                echo "$file is longer than 1000 lines"
                bad=1
            fi
            ;;
        esac
    done < <(files)
    return $bad
}
export -f longest
run_case "no file beyond 1000 lines" 60 bash -c longest
finish
