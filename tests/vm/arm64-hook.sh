#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# arm64-hook.sh ROOT: mmdebstrap's hook that unpacks arm64's kernel, headers and
# a busybox into a root of this architecture. By apt's dependencies they would
# bring a compiler that runs on arm64 in place of the one that runs here.
set -euo pipefail
export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
cd "$1"
release=$(apt-cache depends linux-headers-cloud-arm64:arm64 |
	sed -n 's/.*Depends: linux-headers-\([0-9][^:]*-cloud-arm64\).*/\1/p' | head -n 1)
[ -n "$release" ]
# Their version may differ from the headers' in the suite: what they name counts.
common=${release%-cloud-arm64}
mkdir -p tmp/arm64
cd tmp/arm64
apt-get -o APT::Sandbox::User=root download "linux-headers-$release:arm64" "linux-image-$release:arm64" \
	"linux-headers-$common-common" "linux-kbuild-$common"
for deb in *.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -C ../.. --keep-directory-symlink -xf -; done
apt-get -o APT::Sandbox::User=root download busybox-static:arm64
dpkg-deb --fsys-tarfile busybox-static_*.deb | tar -xOf - --wildcards '*/bin/busybox' >../../busybox-arm64
chmod 755 ../../busybox-arm64
cd ..
rm -rf arm64
