# Programs die at the wrong moment: nothing is lost, nothing is left, nothing pretends to be well.

bats_require_minimum_version 1.5.0
load helpers

setup() { T=$BATS_TEST_TMPDIR; }

# The ids of the pod and container that `husk run -d --name` made.
ids_of() {
	read -r ct pod < <(husk ps -a | awk -v n="$1" '$2 == n { for (i = 1; i <= NF; i++) if (length($i) == 12 && $i ~ /^[0-9a-f]+$/) printf "%s ", $i; print "" }')
}

shim_of() { our_processes | grep -F containerd-shim-husk-v2 | grep -F -- "-id $1" | head -n 1 | cut -d' ' -f1; }
vmm_of() { pgrep -P "$(shim_of "$1")" -f husk-vmm | head -n 1; }
qemu_of() { pgrep -P "$(vmm_of "$1")" -f qemu-system | head -n 1; } # nothing with backend kvm

exited_nonzero() {
	local line
	line=$(husk ps -a | grep -w "$1") && [[ $line == *exited* ]]
}

@test "kill -9 huskd: the pod goes on, is found again, logs are complete, exec works" {
	husk run -d --name survivor "$BUSYBOX" sh -c 'i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.1; done'
	husk exec survivor touch /marker
	kill9_huskd main
	sleep 1
	start_huskd main
	run -0 husk ps
	[[ $output == *survivor*running* ]]
	run -0 husk exec survivor ls /marker
	run -0 husk logs survivor
	# Every tick is there, also those of the time without huskd.
	want=0
	while read -r word n; do
		[ "$word" = tick ]
		[ "$n" = "$want" ]
		want=$((want + 1))
	done <<<"$output"
	[ "$want" -gt 10 ]
	run -0 husk stop -t 0 survivor
	run -0 husk rm survivor
}

@test "a container that ends while huskd is down has its exit code afterwards" {
	husk run -d --name late "$BUSYBOX" sh -c 'sleep 1.5; exit 9'
	kill9_huskd main
	sleep 2.5
	start_huskd main
	run -0 husk ps -a
	[[ $output == *late*exited* ]]
	ids_of late
	run -0 --separate-stderr crictl inspect "$ct"
	jq -e '.status.exitCode == 9' <<<"$output"
	run -0 husk rm late
}

kill_one_and_see() { # NAME SIGNAL-TARGET-FUNCTION
	husk run -d --name "$1" "$BUSYBOX" sleep 1000
	ids_of "$1"
	[ -n "$pod" ]
	victim=$($2 "$pod")
	[ -n "$victim" ]
	kill -9 "$victim"
	wait_until 20 exited_nonzero "$1"
	run -0 --separate-stderr crictl inspect "$ct"
	jq -e '.status.exitCode != 0 and .status.reason != "Completed"' <<<"$output"
	run -0 --separate-stderr crictl inspectp "$pod"
	jq -e '.status.state == "SANDBOX_NOTREADY"' <<<"$output"
	run ! husk exec "$1" true
	run -0 husk rm "$1"
	pod_gone() { ! our_processes | grep -qF -- "$pod"; }
	wait_until 10 pod_gone
}

@test "kill -9 of the monitor: containers are reported dead, nothing is left" {
	kill_one_and_see nomonitor vmm_of
}

@test "kill -9 of the shim: the VM ends with it, containers are reported dead, nothing is left" {
	kill_one_and_see noshim shim_of
}

@test "kill -9 of QEMU: the same" {
	husk run -d --name probe "$BUSYBOX" sleep 1000
	ids_of probe
	q=$(qemu_of "$pod") || true
	husk rm -f probe
	[ -n "$q" ] || skip "backend kvm has no QEMU process"
	kill_one_and_see noqemu qemu_of
}

exec_works() { run -0 husk exec "$1" echo there && [ "$output" = there ]; }

@test "the monitor is stopped for a while, and so is what runs the guest: the pod does not mind" {
	husk run -d --name patient "$BUSYBOX" sleep 1000
	ids_of patient
	monitor=$(vmm_of "$pod")
	[ -n "$monitor" ]
	for victim in $monitor $(qemu_of "$pod"); do
		kill -STOP "$victim"
		timeout 8 "$HUSK_BIN/husk" exec patient true >/dev/null 2>&1 3>&- || true # a call is open meanwhile
		sleep 7
		kill -CONT "$victim"
		wait_until 20 exec_works patient
	done
	run -0 husk rm -f patient
}

@test "a guest that hangs is ended although nobody asks it anything, and says why" {
	husk run -d --name hung "$BUSYBOX" sleep 1000
	ids_of hung
	victim=$(qemu_of "$pod") || victim=
	who=agent
	[ -n "$victim" ] || { victim=$(vmm_of "$pod"); who=monitor; } # with KVM the guest runs in there
	kill -STOP "$victim"
	sleep 30
	run -0 husk ps
	[[ $output == *hung*running* ]]
	wait_until 90 exited_nonzero hung
	run -0 --separate-stderr crictl inspect "$ct"
	jq -e --arg w "$who died: no answer for 6" '.status.message | contains($w)' <<<"$output"
	run -0 husk rm hung
}

same_clock() {
	local before guest after
	before=$(date +%s) guest=$(husk exec "$1" date +%s) after=$(date +%s)
	[ $((guest + 1)) -ge "$before" ] && [ $((guest - 1)) -le "$after" ]
}

@test "the guest's clock is the host's" {
	husk run -d --name clock "$BUSYBOX" sleep 1000
	same_clock clock
	run -0 husk rm -f clock
}

@test "the host's clock is stepped: the guest follows at once, its uptime does not" {
	[ -n "${HUSK_OWN_HOST:-}" ] || skip "this machine's clock is not stepped for a test"
	husk run -d --name steps "$BUSYBOX" sleep 1000
	for by in 5000 -9000 4000; do
		up=$(husk exec steps cut -d. -f1 /proc/uptime)
		date -s "@$(($(date +%s) + by))" >/dev/null
		wait_until 10 same_clock steps
		now=$(husk exec steps cut -d. -f1 /proc/uptime)
		[ "$now" -ge "$up" ] && [ $((now - up)) -lt 300 ]
	done
	run -0 husk rm -f steps
}

# After a pull a worker reads the disks once more, in idle time, and huskd writes down what it has found.
no_image_worker() { ! pgrep -P "$(huskd_pid "$1")" -f husk-image-worker >/dev/null; }

# With a store of its own below $1, which is frozen meanwhile. No `set -e` in here: each step says what comes of it.
pod_on_frozen_disk() {
	local writer
	export HUSK_ENDPOINT=unix://$HUSK_E2E/frozen/husk.sock
	husk pull "$BUSYBOX" >/dev/null 2>&1 && husk run -d --name ice "$BUSYBOX" sleep 1000 &&
		husk exec ice echo there && wait_until 120 no_image_worker frozen && sleep 1 &&
		fsfreeze -f "$1" || return 1
	husk exec ice sh -c 'dd if=/dev/zero of=/file bs=1M count=20 && sync' >"$T/writer" 2>&1 3>&- &
	writer=$!
	# Calls for the monitor and the agent meanwhile. What runs in there may need the disk, and wait for it.
	timeout 25 "$HUSK_BIN/husk" exec ice echo there >/dev/null 2>&1 3>&- || true
	sleep 70 # longer than a monitor or an agent may be silent
	kill -0 "$writer" || { cat "$T/writer"; echo "the write does not hang"; return 1; }
	fsfreeze -u "$1" || return 1
	wait "$writer" || { cat "$T/writer"; return 1; }
	[ "$(husk exec ice sh -c 'wc -c </file')" = $((20 << 20)) ]
}

# with_store_to_freeze FUNCTION: with a huskd whose store is a file system of its own, which is given.
with_store_to_freeze() {
	mnt=$HUSK_STORE/frozen failed=
	mkdir -p "$mnt"
	truncate -s 2G "$T/disk.img"
	mkfs.ext4 -q -F "$T/disk.img"
	mount -o loop "$T/disk.img" "$mnt"
	start_huskd frozen
	"$1" "$mnt" || failed=yes
	fsfreeze -u "$mnt" 2>/dev/null || true
	remove_all_pods frozen
	stop_huskd frozen
	umount "$mnt"
	[ -z "$failed" ]
}

@test "a disk that hangs holds up who uses it, not the pod" {
	with_store_to_freeze pod_on_frozen_disk
}

# As pod_on_frozen_disk. The row of a pod cannot be written, and its call waits for that; nobody else does.
calls_on_frozen_disk() {
	local call pod
	export HUSK_ENDPOINT=unix://$HUSK_E2E/frozen/husk.sock
	echo '{"metadata": {"name": "ice", "namespace": "n", "uid": "u"}}' >"$T/ice.json"
	fsfreeze -f "$1" || return 1
	crictl runp "$T/ice.json" >"$T/pod" 2>&1 3>&- &
	pod=$!
	sleep 3
	kill -0 "$pod" || { cat "$T/pod"; echo "the call does not wait"; return 1; }
	for call in version images "ps -a"; do
		# shellcheck disable=SC2086 # words
		timeout 5 "$HUSK_BIN/husk" $call >/dev/null 3>&- || { echo "$call hangs"; return 1; }
	done
	fsfreeze -u "$1" || return 1
	wait "$pod" || { cat "$T/pod"; return 1; }
}

@test "a disk that hangs holds up no call that only asks" {
	with_store_to_freeze calls_on_frozen_disk
}

@test "kill -9 huskd while pods start: the next huskd cleans up what was half made" {
	for i in 1 2 3; do
		husk run -d --name "half$i" "$BUSYBOX" sleep 1000 >/dev/null 2>&1 3>&- &
		sleep "0.$((i * 3))"
		kill9_huskd main
		wait $! || true
		start_huskd main
	done
	ids=$(husk ps -aq)
	[ -z "$ids" ] || husk rm -f $ids
	remove_all_pods main
	run -0 husk ps -aq
	[ -z "$output" ]
	only_huskd() { [ "$(our_processes | grep -cE 'containerd-shim-husk-v2|husk-vmm|qemu-system')" = 0 ]; }
	wait_until 20 only_huskd || { our_processes; false; }
	[ -z "$(ls "$HUSK_E2E/main/pods" 2>/dev/null)" ]
	[ -z "$(ls "$HUSK_STORE/main/containers" 2>/dev/null)" ]
}

@test "no kernel file: a clear error that says what to do" {
	start_huskd nokernel --kernel /no/such/vmlinux
	HUSK_ENDPOINT=unix://$HUSK_E2E/nokernel/husk.sock husk pull "$BUSYBOX" >/dev/null 2>&1
	HUSK_ENDPOINT=unix://$HUSK_E2E/nokernel/husk.sock run -125 husk run --rm "$BUSYBOX" true
	[[ $output == *"guest kernel /no/such/vmlinux (--kernel; made by 'make kernel'): No such file or directory"* ]]
	stop_huskd nokernel
}

@test "two huskd side by side" {
	start_huskd second
	export HUSK_ENDPOINT=unix://$HUSK_E2E/second/husk.sock
	husk pull "$BUSYBOX" >/dev/null 2>&1
	run -0 husk run --rm "$BUSYBOX" echo second
	[ "${lines[-1]}" = second ]
	stop_huskd second
}

score_of() { cat "/proc/$1/oom_score_adj"; }

# huskd's unit gives it a score; no pod and no worker may come by that.
@test "the OOM score of each process is set on purpose" {
	start_huskd scores
	# Less than our own is refused on some hosts: then the shim has huskd's.
	own=300 shim=300
	if (echo -998 >"/proc/$BASHPID/oom_score_adj") 2>/dev/null; then
		own=-999 shim=-998
	fi
	echo "$own" >"/proc/$(huskd_pid scores)/oom_score_adj"
	export HUSK_ENDPOINT=unix://$HUSK_E2E/scores/husk.sock
	husk pull "$BUSYBOX" >/dev/null 2>&1
	husk run -d --name scored "$BUSYBOX" sleep 1000
	ids_of scored
	[ "$(score_of "$(huskd_pid scores)")" = "$own" ]
	[ "$(score_of "$(shim_of "$pod")")" = "$shim" ]
	monitor=$(vmm_of "$pod")
	[ "$(score_of "$monitor")" = 0 ]
	for q in $(pgrep -P "$monitor"); do
		[ "$(score_of "$q")" = "$(score_of "$monitor")" ]
	done
	# The pod's own value: of its most protected container.
	pod_json score >"$T/pod.json"
	container_json low "$BUSYBOX" sleep 1000 | jq '.linux.resources.oom_score_adj = 900' >"$T/low.json"
	container_json high "$BUSYBOX" sleep 1000 | jq '.linux.resources.oom_score_adj = 400' >"$T/high.json"
	p=$(crictl runp "$T/pod.json")
	m=$(vmm_of "$p")
	c=$(crictl create "$p" "$T/low.json" "$T/pod.json")
	[ "$(score_of "$m")" = 900 ]
	c=$(crictl create "$p" "$T/high.json" "$T/pod.json")
	for q in $m $(pgrep -P "$m"); do [ "$(score_of "$q")" = 400 ]; done
	crictl rm "$c" >/dev/null
	for q in $m $(pgrep -P "$m"); do [ "$(score_of "$q")" = 900 ]; done
	crictl rmp -f "$p" >/dev/null
	# A registry that takes the connection and says nothing keeps a worker for us.
	port=$(free_port)
	python3 -c 'import socket, sys, time
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(60)' "$port" 3>&- &
	registry=$!
	husk pull "127.0.0.1:$port/a/b" >/dev/null 2>&1 3>&- &
	pull=$!
	worker() { w=$(pgrep -P "$(huskd_pid scores)" -f husk-image-worker | head -n 1) && [ -n "$w" ]; }
	wait_until 10 worker
	[ "$(score_of "$w")" = 500 ]
	kill "$pull" "$registry"
	wait "$pull" "$registry" || true
	husk rm -f scored
	stop_huskd scores
}

# The directory of a pod's cgroup: of that hierarchy which has its monitor below "husk-POD".
group_of() {
	local path
	path=$(sed -n 's/^[0-9]*:\(memory\)\?:\(.*\/husk-.*\)$/\2/p' "/proc/$1/cgroup" | head -n 1)
	[ -n "$path" ] || return 1
	for root in /sys/fs/cgroup /sys/fs/cgroup/memory; do
		[ ! -d "$root$path" ] || { echo "$root$path"; return; }
	done
	return 1
}

@test "a pod has a cgroup of its own while it lives, also when everything of it is killed" {
	run -0 husk check
	[[ $output == *cgroups* ]]
	[[ $output != *"no cgroup"* ]] || skip "this host lets us have no cgroups"
	[[ $output != *"without a limit"* ]] || skip "this host has no cgroups for memory"
	husk run -d --name grouped "$BUSYBOX" sleep 1000
	ids_of grouped
	monitor=$(vmm_of "$pod") shim=$(shim_of "$pod")
	group=$(group_of "$monitor")
	[[ $group == *"husk-$pod"* ]]
	for q in $monitor $(pgrep -P "$monitor"); do grep -qxF "$q" "$group/cgroup.procs"; done
	run -1 grep -xF "$shim" "$group/cgroup.procs"
	limit=$(cat "$group/memory.max" 2>/dev/null || cat "$group/memory.limit_in_bytes")
	[ "$limit" -gt $((256 << 20)) ] && [ "$limit" -lt $((1 << 30)) ]
	[ ! -e "$group/memory.oom.group" ] || [ "$(cat "$group/memory.oom.group")" = 1 ]
	husk rm -f grouped
	[ ! -d "$group" ]
	husk run -d --name grouped "$BUSYBOX" sleep 1000
	ids_of grouped
	monitor=$(vmm_of "$pod") shim=$(shim_of "$pod")
	group=$(group_of "$monitor")
	kill -9 "$shim" "$monitor" $(pgrep -P "$monitor")
	husk rm -f grouped
	[ ! -d "$group" ]
}

# The shims' sockets lie in a directory below the state, so the daemon's own may have any name.
@test "a socket called s, and the words of a shim that cannot start" {
	dir=$HUSK_E2E/names
	mkdir -p "$dir"
	ln -s s "$dir/husk.sock" # where start_huskd asks
	start_huskd names --listen "unix://$dir/s"
	export HUSK_ENDPOINT=unix://$dir/s
	husk pull "$BUSYBOX" >/dev/null 2>&1
	run -0 husk run --rm "$BUSYBOX" echo works
	[ "${lines[-1]}" = works ]
	stop_huskd names
	rm "$dir/husk.sock"
	printf '#!/bin/sh\necho "containerd-shim-husk-v2: no luck today" >&2\nexit 3\n' >"$T/shim"
	chmod +x "$T/shim"
	echo "shim: $T/shim" >"$T/huskd.yaml"
	start_huskd names --config "$T/huskd.yaml"
	export HUSK_ENDPOINT=unix://$dir/husk.sock
	run -125 husk run --rm "$BUSYBOX" true
	[[ $output == *"no luck today"* ]]
	stop_huskd names
}

@test "a full disk: no new pods, with a text that helps; removal and a start of huskd work" {
	mnt=$HUSK_E2E/tight dir=$HUSK_E2E/fulldisk
	mkdir -p "$mnt"
	mount -t tmpfs -o size=200M,mode=755 tmpfs "$mnt"
	export HUSK_ENDPOINT=unix://$dir/husk.sock
	tight() { start_huskd fulldisk --root "$mnt/root"; }
	fill() { dd if=/dev/zero of="$mnt/filler" bs=64k oflag=append conv=notrunc 2>/dev/null || true; }
	check() {
		tight || return 1
		husk pull "$BUSYBOX" >/dev/null 2>&1 || return 1
		husk run -d --name a "$BUSYBOX" sleep 1000 >/dev/null || return 1
		husk run -d --name b "$BUSYBOX" sleep 1000 >/dev/null || return 1
		fill
		[ "$(df --output=avail "$mnt" | tail -n 1)" -lt 64 ] || return 1
		run -125 husk run --rm "$BUSYBOX" true || return 1
		[[ $output == *"no space left for pods and containers in $mnt/root"*"make room"* ]] || return 1
		# One while huskd runs, one after a restart; both with nothing free.
		husk rm -f a || return 1
		fill
		kill9_huskd fulldisk
		tight || return 1
		run -0 husk ps -a || return 1
		[[ $output == *" b "* && $output != *" a "* ]] || return 1
		husk rm -f b || return 1
		run -0 husk ps -aq || return 1
		[ -z "$output" ] || return 1
		[ -z "$(crictl pods -q)" ] || return 1
		fill
		run -0 husk rmi "$BUSYBOX" || return 1
		run -0 husk images -q || return 1
		[ -z "$output" ] || return 1
		rm "$mnt/filler"
		husk pull "$BUSYBOX" >/dev/null 2>&1 || return 1
		husk run --rm "$BUSYBOX" true
	}
	check && ok=1 || ok=0
	[ "$ok" = 1 ] || { echo "$output"; tail -n 20 "$dir/huskd.log"; rm -f "$mnt/filler"; }
	remove_all_pods fulldisk || true
	stop_huskd fulldisk
	umount "$mnt"
	[ "$ok" = 1 ]
}

# What a container wrote is never lost for lack of room on the host, and it is told as any program is.
@test "a full disk: containers get ENOSPC, siblings go on, and all can write again when there is room" {
	[ -z "${HUSK_OWN_HOST:-}" ] || skip "the emulated host fills its disk too slowly: the guest is told before the write"
	mnt=$HUSK_E2E/filling dir=$HUSK_E2E/filling.d img=$T/filling.img
	mkdir -p "$mnt"
	truncate -s 12G "$img" # nothing of it is used but what is written
	mkfs.ext4 -q -F -m 0 "$img"
	mount -o loop "$img" "$mnt"
	export HUSK_ENDPOINT=unix://$dir/husk.sock
	avail_mib() { echo $(($(df --output=avail -k "$mnt" | tail -n 1) / 1024)); }
	leave_mib() { # of the file system, by a file that is not written
		rm -f "$mnt/filler"
		sync -f "$mnt"
		fallocate -l $(($(avail_mib) - $1))M "$mnt/filler"
	}
	in_ct() { local c=$1; shift; crictl exec -s --timeout 120 "$c" sh -c "$*"; }
	ticks() { crictl logs "$sibling" | wc -l; }
	ticking() { local n; n=$(ticks); sleep 2; [ "$(ticks)" -gt "$n" ]; }
	can_write() { run in_ct "$writer" 'dd if=/dev/zero of=/again bs=64k count=32 conv=fsync 2>&1'; [ "$status" = 0 ]; }
	check() {
		start_huskd filling.d --root "$mnt/root" || return 1
		crictl pull "$BUSYBOX" >/dev/null || return 1
		pod_json filling >"$T/pod.json"
		container_json writer "$BUSYBOX" sh -c 'trap "exit 0" TERM; while :; do sleep 0.2; done' >"$T/writer.json"
		container_json sibling "$BUSYBOX" sh -c 'trap "exit 0" TERM; while :; do echo t | tee -a /ticks; sleep 0.2; done' >"$T/sibling.json"
		pod=$(crictl runp "$T/pod.json") || return 1
		writer=$(crictl create "$pod" "$T/writer.json" "$T/pod.json") || return 1
		sibling=$(crictl create "$pod" "$T/sibling.json" "$T/pod.json") || return 1
		crictl start "$writer" >/dev/null && crictl start "$sibling" >/dev/null || return 1
		leave_mib 270
		step="writes until the disk is full"
		run in_ct "$writer" 'i=0; while [ $i -lt 100 ]; do dd if=/dev/zero bs=64k count=64 2>&1 >>/big || break; i=$((i+1)); done; echo end $i'
		[[ $output == *"No space left on device"*"end "* && $output != *"nput/output error"* && $output != *"end 100"* ]] || return 1
		run in_ct "$writer" 'sync; cat /big | wc -c; df -k / | tail -n 1'
		[ "$status" = 0 ] || return 1
		grep "host's disk is full" "$dir/huskd.log" | grep -q "$mnt/root" || return 1
		step="a sibling goes on"
		wait_until 30 ticking || return 1
		step="writes again"
		rm "$mnt/filler"
		wait_until 15 can_write || return 1
		run in_ct "$writer" 'echo x >/f && sync /f && echo synced'
		[[ $output == *synced* ]] || return 1
		grep -q "disk has room again" "$dir/huskd.log" || return 1
		step="what was written with nothing left at all"
		leave_mib 0
		dd if=/dev/zero of="$mnt/rest" bs=64k 2>/dev/null
		# Nothing new is written after the sync: that there is room again may not have been told to the guest yet.
		in_ct "$writer" 'dd if=/dev/zero of=/kept bs=64k count=64 2>/dev/null; sync; sync /kept && echo kept' >"$T/kept" 2>&1 &
		kept=$!
		sleep 10
		kill -0 "$kept" || return 1 # it waits for room
		wait_until 30 ticking || return 1
		rm "$mnt/filler" "$mnt/rest"
		wait "$kept" && grep -qx kept "$T/kept" || return 1
		wait_until 15 can_write || return 1
		run in_ct "$writer" 'sync /kept && cat /kept | wc -c; dd if=/dev/zero of=/f bs=64k count=1 conv=fsync'
		[[ $status = 0 && $output == *4194304* ]] || return 1
		run -0 crictl inspect -o go-template --template '{{.status.state}}' "$writer" || return 1
		[ "$output" = CONTAINER_RUNNING ] || return 1
		step="removal while a write waits"
		leave_mib 0
		dd if=/dev/zero of="$mnt/rest" bs=64k 2>/dev/null
		in_ct "$writer" 'dd if=/dev/zero of=/lost bs=64k count=64 2>/dev/null; sync' >/dev/null 2>&1 &
		kept=$!
		sleep 3
		kill -0 "$kept" || return 1
		run -0 crictl rm -f "$writer" || return 1
		run -0 crictl ps -aq || return 1
		[[ $output != *"${writer:0:12}"* ]] || return 1
		wait_until 30 ticking
	}
	check && ok=1 || ok=0
	[ "$ok" = 1 ] || { echo "step: $step"; echo "$output"; cat "$T/kept"; avail_mib; tail -n 20 "$dir/huskd.log"; }
	rm -f "$mnt/filler" "$mnt/rest"
	remove_all_pods filling.d || true
	stop_huskd filling.d
	umount "$mnt"
	[ "$ok" = 1 ]
}
