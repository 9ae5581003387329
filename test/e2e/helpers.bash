# Shared by all files of the suite.

. "${BASH_SOURCE[0]%/*}/../port.bash"

# wait_until SECONDS COMMAND...: until it succeeds.
wait_until() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.1
	done
}

# Processes that carry our mark in their environment, without this shell and what it runs: PID COMMAND.
our_processes() {
	local p exe
	for p in /proc/[0-9]*; do
		exe=$(readlink "$p/exe" 2>/dev/null) || continue
		case $exe in
		"$HUSK_BIN"/* | */qemu-system-* | */docker-registry) ;;
		*) continue ;;
		esac
		if tr '\0' '\n' <"$p/environ" 2>/dev/null | grep -qxF "HUSK_E2E=$HUSK_E2E"; then
			echo "${p#/proc/} $(tr '\0' ' ' <"$p/cmdline")"
		fi
	done
}

no_process_left() { [ -z "$(our_processes)" ]; }

# start_huskd NAME [FLAG...]: its own store and state; returns when it answers. HUSKD_WITH: a command that
# executes it, as an array.
start_huskd() {
	local name=$1 dir=$HUSK_E2E/$1 root=$HUSK_STORE/$1
	shift
	mkdir -p "$dir" "$root"
	printf 'network:\n  conf-dir: %s\n' "$dir/cni" >"$dir/huskd.yaml" # not what this machine has for its own pods
	[[ " $* " == *" --config "* ]] || set -- --config "$dir/huskd.yaml" "$@"
	printf '%s: %s\n' runtime-endpoint "unix://$dir/husk.sock" image-endpoint "unix://$dir/husk.sock" \
		timeout 120 >"$dir/crictl.yaml" # seconds, for VMs that are emulated
	"${HUSKD_WITH[@]}" "$HUSK_BIN/huskd" --root "$root" --state "$dir" --listen "unix://$dir/husk.sock" \
		--backend "$HUSK_BACKEND" --log-level debug "$@" </dev/null >>"$dir/huskd.log" 2>&1 3>&- &
	echo $! >"$dir/huskd.pid"
	disown
	wait_until 20 huskd_answers "$name" || { cat "$dir/huskd.log" >&2; return 1; }
}

huskd_answers() {
	HUSK_ENDPOINT=unix://$HUSK_E2E/$1/husk.sock "$HUSK_BIN/husk" version >/dev/null 2>&1
}

huskd_pid() { cat "$HUSK_E2E/$1/huskd.pid"; }

gone() { ! kill -0 "$1" 2>/dev/null; }

# stop_huskd NAME: pods go on.
stop_huskd() {
	local pid
	pid=$(huskd_pid "$1")
	kill -TERM "$pid" 2>/dev/null || return 0
	wait_until 10 gone "$pid"
}

kill9_huskd() {
	local pid
	pid=$(huskd_pid "$1")
	kill -KILL "$pid"
	wait_until 10 gone "$pid"
}

husk() { "$HUSK_BIN/husk" "$@"; }

# After each test, so that one that fails does not take the next along.
teardown() {
	huskd_answers main || start_huskd main
	remove_all_pods main
}

# remove_all_pods NAME: of the huskd of that name.
remove_all_pods() {
	local ids HUSK_ENDPOINT=unix://$HUSK_E2E/$1/husk.sock
	export HUSK_ENDPOINT
	ids=$(husk ps -aq) || return 1
	[ -z "$ids" ] || husk rm -f $ids >/dev/null || return 1
	ids=$(crictl pods -q) || return 1
	[ -z "$ids" ] || crictl rmp -f $ids >/dev/null
}

# The configuration lies beside the socket.
crictl() { "$CRICTL" -c "$(dirname "${HUSK_ENDPOINT#unix://}")/crictl.yaml" "$@"; }

# pod_json NAME > FILE; container_json NAME IMAGE COMMAND... > FILE
pod_json() {
	jq -n --arg n "$1" --arg d "$HUSK_LOG_DIR/crictl-$1" '{metadata: {name: $n, namespace: "e2e", uid: ("uid-" + $n), attempt: 0},
		hostname: $n, log_directory: $d, labels: {app: $n}, annotations: {"e2e/note": "yes"},
		dns_config: {servers: ["10.10.10.10"], searches: ["example.org"], options: ["ndots:8"]}, linux: {cgroup_parent: "/e2e"}}'
}
container_json() {
	local name=$1 image=$2
	shift 2
	jq -n --arg n "$name" --arg i "$image" '{metadata: {name: $n, attempt: 0}, image: {image: $i}, command: $ARGS.positional,
		log_path: ($n + ".log"), envs: [{key: "E2E", value: "env value"}], labels: {c: $n}, linux: {}}' --args -- "$@"
}

# The pid of a program of one pod: child_of NAME POD-ID PROGRAM; processes are known by the pod's id.
pod_process() {
	our_processes | grep -F -- "$1" | grep -F "$2" | head -n 1 | cut -d' ' -f1
}
