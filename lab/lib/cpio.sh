# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Packs a directory as an initramfs, with the busybox of the downloaded packages (set $busybox).

# A chain of archives is unpacked in order, the later over the earlier.  Each must be a multiple of
# four bytes; cpio pads to 512.
pack() { # TREE
	# shellcheck disable=SC2154 # set by those that source this
	(cd "$1" && find . -mindepth 1 | sort | "$busybox" cpio -o -H newc -R 0:0 2>/dev/null)
}
