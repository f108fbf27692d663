#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Installs what building and testing need, on Debian and Ubuntu.
#
#   ci/setup.sh              everything (ci/packages.d/*)
#   ci/setup.sh build        just what `make` needs (ci/packages.d/build)
#
# As root it installs what is missing; otherwise it prints the line to run and
# fails. A line of ci/packages.d names one package, or several that will do,
# "first|second"; the first one that is there or can be had is taken.
set -u
cd "$(dirname "$0")/.." || exit 1
. ci/path.sh
export DEBIAN_FRONTEND=noninteractive

least=1.85
least_is_at_most() { [ "$(printf '%s\n' "$least" "$1" | sort -V | head -n 1)" = "$least" ]; }
cargo_will_do() {
    local version
    version=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
    [ -n "$version" ] && least_is_at_most "$version"
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
candidate_version() { LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9].*\)/\1/p'; }
candidate() { [ -n "$(candidate_version "$1")" ]; }

# The packages of a cargo that will do, in the array rust: the suite's own; a newer one that Debian
# 12 has beside it, for browsers; or one of those that Ubuntu names after their version.
find_rust() {
    local version
    rust=()
    if version=$(candidate_version cargo) && [ -n "$version" ] && least_is_at_most "${version#*:}"; then
        rust=(cargo rustc rustfmt rust-clippy)
    elif version=$(candidate_version cargo-web) && [ -n "$version" ] && least_is_at_most "${version#*:}"; then
        rust=(cargo-web rustc-web rustfmt-web rust-web-clippy)
    else
        for version in $(apt-cache pkgnames cargo-1. 2>/dev/null | sed -n 's/^cargo-\(1\.[0-9]*\)$/\1/p' | sort -V); do
            if least_is_at_most "$version" && candidate "cargo-$version"; then
                rust=("cargo-$version" "rustc-$version" "rustfmt-$version" "rust-$version-clippy")
                break
            fi
        done
    fi
    # Building needs no formatter and no linter.
    [ -n "$lint" ] || rust=("${rust[@]:0:2}")
}

if ! command -v apt-get >/dev/null; then
    echo "ci/setup.sh knows only apt; the packages are listed in ci/packages.d" >&2
    cargo_will_do
    exit
fi

lint=
case " ${*:-check} " in *" check "*) lint=yes ;; esac
if [ $# = 0 ]; then set -- ci/packages.d/*; else set -- "${@/#/ci/packages.d/}"; fi
wanted=$(sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$@" | sort -u)

find_missing() {
    missing=() nowhere=()
    local line choice found
    for line in $wanted; do
        found=
        for choice in ${line//|/ }; do installed "$choice" && found=yes; done
        [ -n "$found" ] && continue
        for choice in ${line//|/ }; do
            if candidate "$choice"; then missing+=("$choice") found=yes; break; fi
        done
        [ -n "$found" ] || nowhere+=("$line")
    done
    if ! cargo_will_do; then
        find_rust
        if [ ${#rust[@]} = 0 ]; then
            # No lists yet to choose from: as the release is known to have it.
            case $(. /etc/os-release 2>/dev/null; echo "${VERSION_CODENAME:-}") in
            bookworm) nowhere+=("cargo-web" "rustc-web") ;;
            *) nowhere+=("cargo" "rustc") ;;
            esac
        fi
        for choice in ${rust[@]+"${rust[@]}"}; do
            if installed "$choice"; then continue; fi
            if candidate "$choice"; then missing+=("$choice"); fi
        done
    fi
}

find_missing
if [ ${#nowhere[@]} != 0 ] && [ "$(id -u)" = 0 ]; then
    apt-get update -qq || true
    find_missing
fi
if [ ${#nowhere[@]} != 0 ] && [ "$(id -u)" != 0 ] && ! apt-cache show gcc >/dev/null 2>&1; then
    # A machine as new as this has no package lists, so nothing "is to be had" yet.
    echo "Missing. Please run:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]} ${nowhere[*]%%|*}" >&2
    exit 1
fi
if [ ${#nowhere[@]} != 0 ]; then
    echo "not to be had here, and done without: ${nowhere[*]}"
fi
if [ ${#missing[@]} != 0 ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "Missing. Please run:" >&2
        echo "  sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    install=(apt-get -o DPkg::Lock::Timeout=600 -qq install -y --no-install-recommends)
    if ! "${install[@]}" "${missing[@]}" >/dev/null; then
        apt-get update -qq || true
        # One package that cannot be had must not take the others with it.
        "${install[@]}" "${missing[@]}" >/dev/null ||
            for one in "${missing[@]}"; do "${install[@]}" "$one" >/dev/null || status=1; done
    fi
fi
. ci/path.sh
if ! cargo_will_do; then
    echo "cargo $least or later is needed" >&2
    exit 1
fi
exit "${status:-0}"
