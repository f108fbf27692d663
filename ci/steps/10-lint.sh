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

files() {
    if git rev-parse HEAD >/dev/null 2>&1; then
        git ls-files --cached
    else
        find . -type f ! -path './target/*' ! -path './build/*' ! -path './.git/*' | sed 's|^\./||'
    fi
}

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
