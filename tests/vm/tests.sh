# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# vm_build_tests FOLDER [arm64]: builds the guest's test programs, static, into
# the folder, and sets vm_files to what run.sh shall copy.
vm_build_tests() {
	local out=$1 t root flags="-O2 -Wall -Werror -static -pthread"
	mkdir -p "$out"
	vm_files=()
	for t in abi attack outside coherence pages sources surgery owner wait hold refuse limits files oom life churn fuzz numa device failslab bench; do
		if [ "${2:-}" = arm64 ]; then
			root=$("$vm_top/tests/vm/root.sh" arm64)
			mkdir -p "$root/tests"
			cp "$vm_top/tests/vm/$t.c" "$vm_top"/tests/vm/*.h "$root/tests/"
			vm_chroot "$root" /usr/bin/aarch64-linux-gnu-gcc $flags -o "/tests/$t" "/tests/$t.c"
			cp "$root/tests/$t" "$out/$t"
		else
			gcc $flags -o "$out/$t" "$vm_top/tests/vm/$t.c"
		fi
		vm_files+=("$out/$t:/tests/$t")
	done
}

# vm_disks FOLDER: small disks with the file systems that can be made here.
vm_disks() {
	local fs
	# The disk of the guest has sectors of a page.
	local -A options=([ext4]="-b 4096" [xfs]="-s size=4096")
	for fs in ext4 xfs; do
		command -v "mkfs.$fs" >/dev/null || continue
		rm -f "$1/$fs"
		truncate -s 64M "$1/$fs"
		# shellcheck disable=SC2086
		# mkfs.xfs makes one of less than 300 MB for its own tests alone.
		TEST_DIR=x TEST_DEV=x QA_CHECK_FS=x "mkfs.$fs" -q ${options[$fs]} "$1/$fs" && gzip -f "$1/$fs" || continue
		vm_files+=("$1/$fs.gz:/tests/$fs.gz")
	done
	vm_files+=("$vm_top/tests/vm/disk:/tests/disk")
}

# vm_guest SUITE LIST FILE...: runs the guest, and counts what its programs say.
vm_guest() {
	local suite=$1 status=0
	"$vm_top/tests/vm/run.sh" "$@" 2>&1 | tee "$SCRATCH/out"
	grep -q 'guest succeeded' "$SCRATCH/out" || status=1
	vm_count "$SCRATCH/out"
	if [ $status = 0 ]; then ok "$suite: guest"; else not_ok "$suite: guest"; fi
}
