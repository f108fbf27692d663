# shellcheck shell=bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What every step of ci/check may use. Source it from bash, from anywhere:
#
#   . "$(dirname "$0")/../lib.sh"
#   run_case "name of the case" 60 command arguments...   # 60 s; exit 77 = skip
#   ok name | not_ok name [why] | skip name why
#   as_user command arguments...                         # as uid 65534 when root
#   finish                                               # closing line, exit status
#
# TOP is the top of the tree, SCRATCH a folder of this step's own that ordinary
# users can write to; both are gone from the machine after finish.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export TOP
PASSED=0 FAILED=0 SKIPPED=0
SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/xpmem-ci.XXXXXX")
chmod 755 "$SCRATCH"
mkdir -m 700 "$SCRATCH/home"
if [ "$(id -u)" = 0 ]; then chown 65534:65534 "$SCRATCH/home"; fi
trap 'rm -rf "$SCRATCH"' EXIT

. "$TOP/ci/path.sh"

ok() { PASSED=$((PASSED + 1)); echo "ok: $1"; }
not_ok() {
    FAILED=$((FAILED + 1))
    echo "FAILED: $1${2:+: $2}"
    note_failure "$1" "${2:-}"
}
# Keeps what failed for the end of the step: its name, and up to 20 lines of why.
FAILURES=''
note_failure() {
    FAILURES+="FAILED: $1"$'\n'
    if [ -n "$2" ]; then FAILURES+=$(printf '%s\n' "$2" | tail -n 20 | sed 's/^/    /')$'\n'; fi
}
skip() { SKIPPED=$((SKIPPED + 1)); echo "skipped: $1: $2"; }

# run_case NAME SECONDS COMMAND...: 0 passes, 77 skips, all else fails, and so
# does a hang.
run_case() {
    local name=$1 seconds=$2 status=0 out
    shift 2
    out=$(timeout -k 5 "$seconds" "$@" 2>&1 </dev/null) || status=$?
    case $status in
    0) ok "$name" ;;
    77) skip "$name" "${out##*$'\n'}" ;;
    124 | 137) not_ok "$name" "hung for $seconds s"; explain "$out" ;;
    *) not_ok "$name" "status $status"; explain "$out" ;;
    esac
}

# What a case that failed had printed.
explain() {
    printf '%s\n' "$1" | tail -n 40
    FAILURES+=$(printf '%s\n' "$1" | tail -n 20 | sed 's/^/    /')$'\n'
}

# Takes a test program's own closing line "N passed, N failed[, N skipped]" into
# the account: count_from "name" STATUS "output".
count_from() {
    local name=$1 status=$2 line output
    # Its own words for it, and what follows them.
    output=$(printf '%s\n' "$3" | grep -iE -A 3 '^ *(fail|not ok)' | head -n 20)
    line=$(printf '%s\n' "$3" | grep -E '^[0-9]+ passed, [0-9]+ failed' | tail -n 1)
    if [ -z "$line" ]; then
        not_ok "$name" "no closing line, status $status"
        explain "$3"
        return
    fi
    # shellcheck disable=SC2086
    set -- ${line//[!0-9]/ }
    PASSED=$((PASSED + $1)) FAILED=$((FAILED + $2)) SKIPPED=$((SKIPPED + ${3:-0}))
    if [ "$2" != 0 ]; then note_failure "$name: $line" "${output:-$3}"; fi
    if [ "$status" != 0 ] && [ "$2" = 0 ]; then
        not_ok "$name" "says no failure, but ended with status $status"
    fi
}

# run_suite NAME SECONDS COMMAND...: a program that has a closing line.
run_suite() {
    local name=$1 seconds=$2 status=0 out
    shift 2
    echo "--- $name"
    out=$(timeout -k 5 "$seconds" "$@" 2>&1 </dev/null) || status=$?
    printf '%s\n' "$out"
    count_from "$name" "$status" "$out"
}

# Runs a command as an ordinary user who has no name, no groups and a home of
# his own; when nobody is root, as whoever runs this.
as_user() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid 65534 --regid 65534 --clear-groups \
            env -u XDG_RUNTIME_DIR HOME="$SCRATCH/home" TMPDIR="$SCRATCH/home" USER=nobody "$@"
    else
        "$@"
    fi
}
# timeout(1) and friends cannot call a function: `run_case x 9 "${AS_USER[@]}" cmd`.
if [ "$(id -u)" = 0 ]; then
    AS_USER=(setpriv --reuid 65534 --regid 65534 --clear-groups
        env -u XDG_RUNTIME_DIR "HOME=$SCRATCH/home" "TMPDIR=$SCRATCH/home" USER=nobody)
else
    AS_USER=()
fi

finish() {
    # Once more, where a reader of the end finds it.
    if [ -n "$FAILURES" ]; then printf '%s\n%s' "--- what failed" "$FAILURES"; fi
    if [ "$SKIPPED" = 0 ]; then
        echo "$PASSED passed, $FAILED failed"
    else
        echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
    fi
    [ "$FAILED" = 0 ]
    exit
}
