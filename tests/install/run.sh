#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Used as a user does: from an installed prefix, moved after it was installed.
. "$(dirname "$0")/../../ci/lib.sh"
cd "$TOP" || exit 1
S=$SCRATCH SRC=$TOP/tests/install
export S SRC
ulimit -c 0

run_case "make install PREFIX= DESTDIR=" 120 make install PREFIX=/opt/somewhere DESTDIR="$S/stage"
# Elsewhere than it was made for: the .pc files must follow.
mv "$S/stage/opt/somewhere" "$S/prefix" || finish
export P=$S/prefix
export PKG_CONFIG_PATH=$P/lib/pkgconfig
export LD_LIBRARY_PATH=$P/lib

files() {
    local file missing=0
    for file in lib/libxpmem.so.0.0.0 lib/libxpmem.so.0 lib/libxpmem.so lib/libxpmem.a include/xpmem.h \
        lib/pkgconfig/xpmem.pc lib/pkgconfig/cray-xpmem.pc bin/xpmem; do
        [ -e "$P/$file" ] || { echo "no $file"; missing=1; }
    done
    [ "$(readlink "$P/lib/libxpmem.so.0")" = libxpmem.so.0.0.0 ] && [ $missing = 0 ] &&
        ! grep -rIl -e "$S" -e /opt/somewhere "$P/lib/pkgconfig"
}
relocatable() {
    local name
    for name in xpmem cray-xpmem; do
        [ "$(realpath "$(pkg-config --variable=libdir $name)")" = "$P/lib" ] || return 1
        [ "$(realpath "$(pkg-config --variable=includedir $name)")" = "$P/include" ] || return 1
        pkg-config --exact-version="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)" $name || return 1
    done
}
multiarch() { # a library folder that is not PREFIX/lib
    local lib=$S/multi/lib/x86_64-linux-gnu flags
    make install PREFIX="$S/multi" LIBDIR="$lib" >/dev/null &&
        flags=$(PKG_CONFIG_PATH=$lib/pkgconfig pkg-config --cflags --libs xpmem) &&
        cc -o "$S/multi/probe" "$SRC/probe.c" $flags &&
        readelf -d "$S/multi/probe" | grep -q libxpmem.so.0
}
configure() {
    mkdir -p "$S/configure" && cp "$SRC/configure.ac" "$S/configure/" && cd "$S/configure" &&
        autoreconf -i && ./configure
}
export -f files relocatable multiarch configure
run_case "files" 30 bash -c files
run_case "pkg-config follows a moved prefix" 30 bash -c relocatable
run_case "LIBDIR of its own" 60 bash -c multiarch
if command -v autoreconf >/dev/null; then
    run_case "configure: PKG_CHECK_MODULES, AC_CHECK_LIB" 120 bash -c configure
else
    skip "configure" "no autoconf"
fi

run_case "C, shared, by xpmem.pc" 60 \
    bash -c 'cc -Wall -Werror -o $S/c-shared $SRC/probe.c $(pkg-config --cflags --libs xpmem)'
run_case "C, shared, by cray-xpmem.pc" 60 \
    bash -c 'cc -Wall -Werror -o $S/c-cray $SRC/probe.c $(pkg-config --cflags --libs cray-xpmem)'
run_case "C, all static" 60 \
    bash -c 'cc -static -o $S/c-static $SRC/probe.c $(pkg-config --static --cflags --libs xpmem)'
run_case "C, our archive in a dynamic program" 60 \
    bash -c 'cc -o $S/c-archive $SRC/probe.c -I$P/include $P/lib/libxpmem.a'
run_case "C, position-dependent" 60 \
    bash -c 'cc -no-pie -o $S/c-nopie $SRC/probe.c $(pkg-config --cflags --libs xpmem)'
if command -v g++ >/dev/null; then
    run_case "C++, shared" 60 \
        bash -c 'g++ -x c++ -Wall -Werror -o $S/cxx-shared $SRC/probe.c $(pkg-config --cflags --libs xpmem)'
    run_case "C++, all static" 60 \
        bash -c 'g++ -x c++ -static -o $S/cxx-static $SRC/probe.c -x none $(pkg-config --static --cflags --libs xpmem)'
fi
run_case "a program that forks" 60 \
    bash -c 'cc -o $S/counters $SRC/counters.c $(pkg-config --cflags --libs xpmem)'
run_case "a plugin, and somebody else's libxpmem.so.0" 60 \
    bash -c 'cc -o $S/plugin $SRC/plugin.c -ldl && mkdir -p $S/other &&
        cc -shared -fPIC -I$P/include -Wl,-soname,libxpmem.so.0 -o $S/other/libxpmem.so.0 $SRC/other.c &&
        cc -o $S/relinked -I$P/include $SRC/probe.c $S/other/libxpmem.so.0'

# And now run them, as root and as an ordinary user.
relinked() {
    # The other library answers -1, ours serves.
    LD_LIBRARY_PATH=$S/other "$S/relinked" && return 1
    LD_LIBRARY_PATH=$P/lib "$S/relinked"
}
undisturbed() {
    diff <(ls -la /usr /etc 2>&1) <(LD_PRELOAD=$P/lib/libxpmem.so.0 ls -la /usr /etc 2>&1) &&
        LD_PRELOAD=$P/lib/libxpmem.so.0 bash -c 'for i in 1 2 3; do (exit $i) | cat; done; true'
}
# A line for each process that called, with its own counts; the grandchild is
# silent. All of it in the file, none on standard error.
counters() {
    local file
    file=$(mktemp "${TMPDIR:-/tmp}/xpmem-counters.XXXXXX")
    trap 'rm -f "$file"' RETURN
    echo before >"$file"
    [ -z "$(XPMEM_DEBUG=stats XPMEM_DEBUG_FILE=$file "$S/counters" 2>&1)" ] || return 1
    cat "$file"
    [ "$(head -n 1 "$file")" = before ] && [ "$(wc -l <"$file")" = 3 ] &&
        grep -q ' makes=3 ' "$file" && grep -q ' makes=1 ' "$file" || return 1
    XPMEM_DEBUG=1 XPMEM_DEBUG_FILE=$file "$S/counters" && grep -qE '^xpmem\[[0-9]+\]: back end: ' "$file"
}
export -f relinked undisturbed counters
runs() { # WHO COMMAND-PREFIX...
    local who=$1 program
    shift
    for program in c-shared c-cray c-static c-archive c-nopie cxx-shared cxx-static; do
        if [ -e "$S/$program" ]; then run_case "$who: $program" 60 "$@" "$S/$program"; fi
    done
    run_case "$who: dlopen, dlsym, dlclose with threads alive" 60 "$@" "$S/plugin" "$P/lib/libxpmem.so.0"
    run_case "$who: LD_PRELOAD" 60 "$@" env LD_PRELOAD="$P/lib/libxpmem.so.0" "$S/plugin"
    run_case "$who: a program linked against another libxpmem.so.0" 60 "$@" bash -c relinked
    run_case "$who: preloaded strangers notice nothing" 60 "$@" bash -c undisturbed
    run_case "$who: XPMEM_BACKEND=off is ENOSYS" 60 "$@" bash -c \
        'XPMEM_BACKEND=off $S/c-shared; [ $? = 77 ]'
    run_case "$who: statistics on request" 60 "$@" bash -c \
        'XPMEM_DEBUG=stats $S/c-shared 2>&1 >/dev/null | grep -E "^xpmem: stats pid=[0-9]+ backend=(user|kernel) makes=1 gets=1 attaches=1 detaches=1 promotions=[0-9]+ bytes_promoted=[0-9]+ faults=[0-9]+ revocations=[0-9]+ late_revocations=[0-9]+ stops=[0-9]+ longest_stop_us=[0-9]+"'
    run_case "$who: counters of a fork child start at zero" 60 "$@" bash -c counters
    run_case "$who: silence otherwise" 60 "$@" bash -c '[ -z "$($S/c-shared 2>&1)" ]'
}
runs root env
if [ "$(id -u)" = 0 ]; then runs user "${AS_USER[@]}"; fi
finish
