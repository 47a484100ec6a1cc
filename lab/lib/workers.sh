# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# What scenarios on the build host itself use; logs go to $LAB_DIR, and the programs under test are in
# the path (lib/guests.sh).  Their guests are strangers to each other, each with a segment of shared
# memory; what a guest runs comes with its kernel's arguments, see guest/init-worker.

# ---- telling lab/run ----

step() { # TEXT...: progress
	echo "--- $*"
	echo "step $*" >&3
}

story() { # TEXT...: a result worth showing
	echo "=== $*"
	echo "story $*" >&3
}

fail() { # REASON...
	echo "*** fail $*"
	echo "fail $*" >&3
	sleep 60 # the end comes from outside
	exit 1
}

# The only way to pass: nothing complained.
pass() {
	check_sluiced
	if grep -q -E 'Sanitizer|runtime error:' "$LAB_DIR"/*.log; then
		fail "a sanitizer complained: $(grep -m1 -h -E 'Sanitizer|runtime error:' "$LAB_DIR"/*.log)"
	fi
	if grep -q -E 'Kernel panic|Oops|BUG:|Call Trace' "$LAB_DIR"/*.log; then
		fail "a guest's kernel complained: $(grep -m1 -h -E 'Kernel panic|Oops|BUG:|Call Trace' \
			"$LAB_DIR"/*.log)"
	fi
	echo "*** pass"
	echo "pass" >&3
	sleep 60
	exit 0
}

# ---- small tools ----

must() { # COMMAND...
	echo "+ $*"
	"$@" || fail "$* ended with status $?"
}

wait_for() { # SECONDS WHAT COMMAND...
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		check_sluiced
		[ "$SECONDS" -lt "$end" ] || fail "waited in vain for $what"
		sleep 0.2
	done
}

# ---- guests ----

# Whether any process still holds the file with this inode, by descriptor or mapping.
memory_is_held() { # INODE
	local inodes
	grep -qsE " $1 +/memfd:" /proc/[0-9]*/maps && return
	# Processes come and go meanwhile, which find complains of.
	inodes=$(find /proc/[0-9]*/fd -maxdepth 1 -lname '/memfd:*' -exec stat -L -c ' %i ' {} + \
		2>/dev/null) || true
	grep -q " $1 " <<<"$inodes"
}

# ---- sluiced ----

sluiced_pid=
# For sockets, whose paths must be short.
run=$LAB_RUN

# The daemon without Xen.
start_sluiced() { # ARGUMENT...
	echo "+ sluiced $*"
	sluiced --name lab --socket "$run/sluiced.sock" --state "$run/sluiced.json" --backend none \
		--sivshm-dir "$run" "$@" >>"$LAB_DIR/sluiced.log" 2>&1 3>&- &
	sluiced_pid=$!
	wait_for 20 "sluiced to serve its socket" lab_sluice rpc rpc_get_methods
}

lab_sluice() { # COMMAND...
	sluice --socket "$run/sluiced.sock" "$@"
}

# Fails the run if the daemon has ended by itself.
check_sluiced() {
	[ -z "$sluiced_pid" ] || kill -0 "$sluiced_pid" 2>/dev/null ||
		fail "sluiced ended by itself: $(tail -n1 "$LAB_DIR/sluiced.log")"
}

stop_sluiced() {
	local pid=$sluiced_pid status=0
	check_sluiced
	sluiced_pid=
	kill "$pid"
	wait "$pid" || status=$?
	[ "$status" = 0 ] || fail "sluiced ended with status $status after SIGTERM"
}
