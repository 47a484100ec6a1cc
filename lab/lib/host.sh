# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034 # used by those that source it
# What the lab's commands on the build host share: places, messages, stamps.
#
# Everything that is costly is kept, and each kept thing carries a stamp: a digest of all that went
# into it.  A step asks `fresh`, does nothing when the stamp still holds, and writes it last, so that
# an interrupted step is simply done again.

lab=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
repo=$(dirname "$lab")
# Absolute, because some steps change directory.
cache=$(realpath -m "${LAB_CACHE:-$repo/build/lab-cache}")
out=$(realpath -m "${LAB_OUT:-$repo/build/lab}")
export LC_ALL=C

# The clock starts with the first command and goes on in those that it calls.
export LAB_STARTED="${LAB_STARTED:-$(date +%s)}"

say() { # TEXT...: a line of progress, with the seconds since the start
	printf '[%3d s] %s\n' "$(($(date +%s) - LAB_STARTED))" "$*"
}

die() { # TEXT...
	printf 'lab: %s\n' "$*" >&2
	exit 1
}

need() { # PROGRAM PACKAGE: a program that this host must have
	command -v "$1" >/dev/null || die "$1 is missing on this host: apt-get install $2"
}

digest() { # reads standard input
	sha256sum | cut -c1-16
}

fresh() { # STAMP-FILE DIGEST
	[ -e "$1" ] && [ "$(cat "$1")" = "$2" ]
}
