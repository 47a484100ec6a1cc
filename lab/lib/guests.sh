# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2154 # from lib/host.sh
# What it takes to boot guests with a segment on this host: the build under test, and an initramfs.
# After lab/images has run.

images=$cache/images
busybox=$images/busybox
build=$(cd "$repo" && realpath -m "${BUILD:-build}")
tools=${LAB_TOOLS:-$build/lab/tools}
destdir=${SLUICE_DESTDIR:-}
# shellcheck source=cpio.sh
. "$lab/lib/cpio.sh"

# The tree to test, in $destdir: the one that was named, or what meson installs of $build.
install_tree() { # DIRECTORY, for the log
	[ -z "$destdir" ] || return 0
	[ -e "$build/build.ninja" ] ||
		die "nothing to test in $build: run make, or set SLUICE_DESTDIR to an installed tree"
	destdir=$build/lab/destdir
	rm -rf "$destdir"
	mkdir -p "$destdir"
	meson install -C "$build" --destdir "$destdir" >"$1/install.log" 2>&1 ||
		die "meson install failed: $(tail -n1 "$1/install.log")"
}

# What guests start with, DIRECTORY/worker.initrd: the programs named, each with all its libraries,
# as the image of such guests has none.
build_worker() { # DIRECTORY PROGRAM...
	local dir=$1 tree=$1/worker program place library
	shift
	mkdir -p "$tree/usr/bin"
	install -m 755 "$lab/guest/init-worker" "$tree/init"
	for program in "$@"; do
		for place in "$destdir/usr/bin" "$tools" "$tools/../../examples/wordcount"; do
			[ ! -x "$place/$program" ] || cp "$place/$program" "$tree/usr/bin/"
		done
		[ -x "$tree/usr/bin/$program" ] || die "guests need $program, which has not been built"
	done
	# What the programs name with a path: libraries, and the dynamic linker itself.  One program
	# alone is not named by ldd.
	for program in "$tree"/usr/bin/*; do
		ldd "$program"
	done | sed -n 's/.*[[:space:]]\(\/[^ ]*\) (.*/\1/p' | sort -u | while read -r library; do
		mkdir -p "$tree$(dirname "$library")"
		cp -L "$library" "$tree$library"
	done
	pack "$tree" | cat "$images/worker.cpio" - >"$dir/worker.initrd"
}

# Where host/guest and scenarios on this host find all that.
export_guests() { # DIRECTORY of build_worker
	export LAB_IMAGES=$images LAB_INITRD=$1/worker.initrd
	export PATH=$destdir/usr/sbin:$destdir/usr/bin:$tools:$PATH
	export LD_LIBRARY_PATH=$destdir/usr/lib/x86_64-linux-gnu
}
