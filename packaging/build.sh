#!/usr/bin/env bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Packages of the library, its headers and the tool, from what is committed, into build/packages.
#
#   packaging/build.sh deb      libxpmem0, libxpmem-dev, xpmem-tools; needs debhelper
#   packaging/build.sh rpm      libxpmem, libxpmem-devel, xpmem-tools; needs rpmbuild
#
# Words after it are passed on to dpkg-buildpackage or rpmbuild: -d or --nodeps where cargo is not a
# package's.
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/path.sh
kind=${1:-}
case $kind in
deb | rpm) shift ;;
*) sed -n '5,6s/^# *//p' "$0" >&2; exit 2 ;;
esac
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
work=$(mktemp -d "${TMPDIR:-/tmp}/xpmem-package.XXXXXX")
trap 'rm -rf "$work"' EXIT
out=$PWD/build/packages
mkdir -p "$out"
name=xpmem-$version
git archive --format=tar --prefix="$name/" HEAD >"$work/$name.tar"
if [ "$kind" = deb ]; then
    tar -C "$work" -xf "$work/$name.tar"
    cp -r packaging/deb "$work/$name/debian"
    mkdir "$work/$name/debian/source"
    echo '3.0 (native)' >"$work/$name/debian/source/format"
    printf 'xpmem (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- xpmem maintainers <maintainers@xpmem.invalid>  %s\n' \
        "$version" "$(git log -1 --format=%cD)" >"$work/$name/debian/changelog"
    (cd "$work/$name" && dpkg-buildpackage -b -us -uc "$@")
    mv "$work"/*.deb "$out/"
else
    rpmbuild -bb --define "_topdir $work/rpm" --define "_sourcedir $work" --define "the_version $version" \
        "$@" packaging/rpm/xpmem.spec
    find "$work/rpm/RPMS" -name '*.rpm' -exec mv {} "$out/" ';'
fi
ls "$out"
