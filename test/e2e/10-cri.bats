# CRI by the real crictl: image, pod, container, exec, logs, and the codes of what is not there.

bats_require_minimum_version 1.5.0
load helpers

setup() { T=$BATS_TEST_TMPDIR; }

@test "version and status" {
	run -0 --separate-stderr crictl version
	[[ $output == *"RuntimeName:  husk"* ]]
	[[ $output == *"RuntimeApiVersion:  v1"* ]]
	run -0 --separate-stderr crictl info
	jq -e '.status.conditions[] | select(.type == "RuntimeReady") | .status' <<<"$output"
	jq -e '.status.conditions[] | select(.type == "NetworkReady") | .status == false and .reason == "NetworkPluginNotReady"' <<<"$output"
}

@test "pull, images, inspecti, imagefsinfo" {
	run -0 --separate-stderr crictl pull "$DEBIAN"
	run -0 --separate-stderr crictl images -o json
	jq -e --arg t "$DEBIAN:latest" '.images[] | select(.repoTags | index($t)) | (.size | tonumber) > 1000000' <<<"$output"
	run -0 --separate-stderr crictl inspecti "$DEBIAN"
	jq -e '.status.id | startswith("sha256:")' <<<"$output"
	run -0 --separate-stderr crictl imagefsinfo
	jq -e '[.. | .usedBytes?.value // empty | tonumber][0] > 1000000' <<<"$output"
}

@test "the life of a pod: runp, create, start, ps, logs, exec -s, stop, rm, stopp, rmp, rmi" {
	crictl pull "$BUSYBOX"
	pod_json life >"$T/pod.json"
	container_json main "$BUSYBOX" sh -c 'echo out; echo err >&2; echo $E2E; hostname; cat /etc/resolv.conf; uname -r; exec sleep 1000' |
		jq '.linux.security_context.namespace_options.pid = 1' >"$T/ct.json" # a first process that ignores SIGTERM

	run -0 --separate-stderr crictl runp "$T/pod.json"
	pod=$output
	run -0 --separate-stderr crictl pods --id "$pod" -o json
	jq -e '.items[0].state == "SANDBOX_READY" and .items[0].labels.app == "life" and .items[0].annotations["e2e/note"] == "yes"' <<<"$output"
	run -0 --separate-stderr crictl create "$pod" "$T/ct.json" "$T/pod.json"
	ct=$output
	run -0 --separate-stderr crictl inspect -o go-template --template '{{.status.state}}' "$ct"
	[ "$output" = CONTAINER_CREATED ]
	run -0 --separate-stderr crictl start "$ct"
	run -0 --separate-stderr crictl ps -o json
	jq -e --arg c "$ct" '.containers[] | select(.id == $c) | .state == "CONTAINER_RUNNING"' <<<"$output"

	log_has() { crictl logs "$ct" 2>&1 | grep -q "ndots:8"; }
	wait_until 20 log_has
	run -0 --separate-stderr crictl logs "$ct"
	[ "${lines[0]}" = out ]
	[ "${lines[1]}" = "env value" ]
	[ "${lines[2]}" = life ]
	[ "$stderr" = err ]
	[[ $output == *"nameserver 10.10.10.10"* && $output == *"search example.org"* ]]
	[[ $output != *"$(uname -r)"* ]]

	run -0 --separate-stderr crictl exec -s "$ct" sh -c 'echo to out; echo to err >&2'
	[ "$output" = $'to out\n\nto err' ] # crictl has no other place for the second stream
	run ! --separate-stderr crictl exec -s "$ct" sh -c 'exit 3'
	[[ $stderr == *"exited with 3"* ]]
	run ! --separate-stderr crictl exec -s --timeout 1 "$ct" sleep 100
	[[ $stderr == *"code = DeadlineExceeded"*"timed out after 1 s"* ]]
	# Nothing of it is left, neither a child, nor one with a session of its own, nor an orphan of it.
	run ! --separate-stderr crictl exec -s --timeout 1 "$ct" sh -c \
		'trap "" TERM HUP; setsid sleep 4321 & (setsid sleep 4321 &); sleep 4321; true'
	[[ $stderr == *"timed out after 1 s"* ]]
	exec_is_gone() { ! crictl exec -s "$ct" ps | grep -q "sleep 432[1]"; }
	wait_until 10 exec_is_gone
	run ! --separate-stderr crictl exec -s "$ct" /no/such/command
	[[ $stderr == *"code = Unknown"*"start "*"/no/such/command"*": No such file or directory"* ]]

	run -0 --separate-stderr crictl stop -t 1 "$ct"
	run -0 --separate-stderr crictl inspect "$ct"
	jq -e '.status.state == "CONTAINER_EXITED" and .status.exitCode == 137 and .status.reason == "Error" and (.status.finishedAt != "")' <<<"$output"
	run -0 --separate-stderr crictl rm "$ct"
	run -0 --separate-stderr crictl stopp "$pod"
	run -0 --separate-stderr crictl inspectp "$pod"
	jq -e '.status.state == "SANDBOX_NOTREADY"' <<<"$output"
	run -0 --separate-stderr crictl rmp "$pod"
	run -0 --separate-stderr crictl pods -q --id "$pod"
	[ -z "$output" ]
	run -0 --separate-stderr crictl rmi "$BUSYBOX"
	run -0 --separate-stderr crictl images -q "$BUSYBOX"
	[ -z "$output" ]
	crictl pull "$BUSYBOX"
}

@test "two containers of one pod share network, host name and IPC, not processes" {
	pod_json two >"$T/pod.json"
	pod=$(crictl runp "$T/pod.json")
	for n in a b; do
		container_json $n "$BUSYBOX" sleep 1000 | jq '.linux.security_context.namespace_options.pid = 1' >"$T/$n.json"
		ct=$(crictl create "$pod" "$T/$n.json" "$T/pod.json")
		crictl start "$ct"
		declare "$n=$ct"
	done
	for ns in net uts ipc; do
		[ "$(crictl exec -s "$a" readlink /proc/self/ns/$ns)" = "$(crictl exec -s "$b" readlink /proc/self/ns/$ns)" ]
	done
	for ns in pid mnt cgroup; do
		[ "$(crictl exec -s "$a" readlink /proc/1/ns/$ns)" != "$(crictl exec -s "$b" readlink /proc/1/ns/$ns)" ]
	done
	crictl exec -s "$a" sh -c 'echo shared >/dev/shm/x'
	[ "$(crictl exec -s "$b" cat /dev/shm/x)" = shared ]
	crictl exec -s "$a" sh -c 'echo mine >/file'
	run ! --separate-stderr crictl exec -s "$b" cat /file
	[[ $stderr == *"/file"*"No such file or directory"* ]]
	crictl rmp -f "$pod"
}

@test "log rotation: after ReopenContainerLog new lines are in the new file" {
	pod_json rotate >"$T/pod.json"
	container_json main "$BUSYBOX" sh -c 'while :; do read l </go; echo $l; done' | jq '.command = ["sh", "-c", "mkfifo /go; while :; do read l </go; echo $l; done"]' >"$T/ct.json"
	pod=$(crictl runp "$T/pod.json")
	ct=$(crictl create "$pod" "$T/ct.json" "$T/pod.json")
	crictl start "$ct"
	log=$HUSK_LOG_DIR/crictl-rotate/main.log
	crictl exec -s "$ct" sh -c 'while [ ! -p /go ]; do sleep 0.1; done; echo one >/go'
	wait_until 10 grep -q one "$log"
	mv "$log" "$log.1"
	run -0 reopen_log "$ct"
	[ -f "$log" ]
	crictl exec -s "$ct" sh -c 'echo two >/go'
	wait_until 10 grep -q two "$log"
	run ! grep -q two "$log.1"
	crictl rmp -f "$pod"
}

# crictl has no command for ReopenContainerLog but the option of `logs`.
reopen_log() { crictl logs -r "$1" >/dev/null; }

@test "what is not there: NOT_FOUND for status, OK for removal" {
	for call in inspect inspectp start "exec -s"; do
		run ! --separate-stderr crictl $call 0123456789ab $([ "$call" != "exec -s" ] || echo true)
		[ -z "$output" ]
		[[ $stderr == *"code = NotFound desc = no "*" 0123456789ab"* ]]
	done
	run -0 crictl stop 0123456789ab
	run -0 crictl stopp 0123456789ab
}

@test "what is not implemented says so" {
	run ! --separate-stderr crictl stats
	[[ $stderr == *"code = Unimplemented desc = ListContainerStats"* ]]
}

@test "a name twice is refused, and can be used again after removal" {
	pod_json dup >"$T/pod.json"
	pod=$(crictl runp "$T/pod.json")
	run ! --separate-stderr crictl runp "$T/pod.json"
	[[ $stderr == *"code = AlreadyExists"*"$pod"* ]]
	container_json main "$BUSYBOX" sleep 1000 >"$T/ct.json"
	ct=$(crictl create "$pod" "$T/ct.json" "$T/pod.json")
	run ! --separate-stderr crictl create "$pod" "$T/ct.json" "$T/pod.json"
	[[ $stderr == *"code = AlreadyExists"*"$ct"* ]]
	crictl rmp -f "$pod"
	pod=$(crictl runp "$T/pod.json")
	crictl rmp -f "$pod"
}

@test "a volume is refused with a clear text, not ignored" {
	pod_json vol >"$T/pod.json"
	pod=$(crictl runp "$T/pod.json")
	container_json main "$BUSYBOX" true | jq '.mounts = [{container_path: "/data", host_path: "/tmp"}]' >"$T/ct.json"
	run ! --separate-stderr crictl create "$pod" "$T/ct.json" "$T/pod.json"
	[ -z "$output" ]
	[[ $stderr == *"code = Unimplemented"*"mounts are not implemented yet (/data)"* ]]
	crictl rmp -f "$pod"
}

@test "the environment: any bytes, seven thousand variables, and what is too long for an exec" {
	husk run -d --name bytes -e "ODD=$(printf 'x\377y')" "$BUSYBOX" sh -c 'printf %s "$ODD" | od -An -tx1; sleep 1000'
	seen() { [ "$(husk logs bytes)" = " 78 ff 79" ]; }
	wait_until 20 seen
	run -0 husk exec bytes sh -c 'printf %s "$ODD" | od -An -tx1'
	[ "$output" = " 78 ff 79" ]
	husk rm -f bytes

	pod_json environ >"$T/pod.json"
	pod=$(crictl runp "$T/pod.json")
	container_json many "$BUSYBOX" sh -c 'env | grep -c ^SERVICE_' |
		jq '.envs = [range(7000) | {key: "SERVICE_\(.)", value: "tcp://10.0.0.\(.):80"}]' >"$T/many.json"
	ct=$(crictl create "$pod" "$T/many.json" "$T/pod.json")
	crictl start "$ct"
	counted() { [ "$(crictl logs "$ct")" = 7000 ]; }
	wait_until 20 counted
	# 2.2 MiB: the guest's kernel takes 2.
	container_json long "$BUSYBOX" true |
		jq '.envs = [range(22) | {key: "K\(.)", value: ("x" * 100000)}]' >"$T/long.json"
	ct=$(crictl create "$pod" "$T/long.json" "$T/pod.json")
	run ! crictl start "$ct"
	[[ ${output,,} == *"argument list too long"* ]]
	crictl rmp -f "$pod"
}

# kubelet has no limit of its own. Each has a disk of 64 GiB in the VM's one disk. The emulated host takes some
# seconds for each: fewer there.
@test "two hundred and fifty containers in one pod" {
	n=250
	[ -z "${HUSK_OWN_HOST:-}" ] || n=66
	pod_json many | jq '.linux.resources = {}' >"$T/pod.json"
	pod=$(crictl runp "$T/pod.json")
	for i in $(seq "$n"); do
		container_json "c$i" "$BUSYBOX" sleep 1000 >"$T/c.json"
		ct=$(crictl create "$pod" "$T/c.json" "$T/pod.json")
	done
	crictl start "$ct"
	run -0 --separate-stderr crictl exec -s "$ct" echo works
	[ "$output" = works ]
	[ "$(crictl ps -a -q -p "$pod" | wc -l)" = "$n" ]
	crictl rmp -f "$pod"
}
