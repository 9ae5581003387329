# When something is wrong inside a guest, the host can tell what.

bats_require_minimum_version 1.5.0
load helpers

setup() { T=$BATS_TEST_TMPDIR; }

# privileged NAME COMMAND...: a pod with one privileged container that runs; ids in $pod and $ct.
privileged() {
	local name=$1
	shift
	pod_json "$name" | jq '.linux.security_context.privileged = true' >"$T/pod.json"
	container_json "$name" "$BUSYBOX" "$@" |
		jq '.linux = {security_context: {privileged: true}, resources: {memory_limit_in_bytes: 33554432}}' >"$T/ct.json"
	pod=$(crictl runp "$T/pod.json")
	ct=$(crictl create "$pod" "$T/ct.json" "$T/pod.json")
	crictl start "$ct"
}

# What huskd, the shim and the monitor of the pod have logged.
log_of() { grep -F -- "$1" "$HUSK_E2E/main/huskd.log"; }

container_over() { [ "$(crictl inspect "$ct" | jq -r .status.state)" = CONTAINER_EXITED ]; }

@test "a guest that panics says so: in the reason, in husk inspect, in the log" {
	# The kernel panics when a container is out of memory.
	privileged panics sh -c 'echo 2 >/proc/sys/vm/panic_on_oom; dd if=/dev/zero of=/dev/null bs=200M'
	wait_until 60 container_over
	text='Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled'

	run -0 --separate-stderr crictl inspect "$ct"
	jq -e --arg t "$text" '.status.reason == "SandboxDied" and (.status.message | contains($t))' <<<"$output"

	run -0 --separate-stderr husk inspect "$ct"
	info=$(jq '.[0].Husk.PodInfo' <<<"$output")
	jq -e --arg t "$text" '(.reason | contains($t)) and any(.console[]; contains($t))' <<<"$info"
	log=$(jq -r .consoleLog <<<"$info")
	[ "$log" = "$HUSK_E2E/main/pods/$pod/console.log" ]
	grep -qF "$text" "$log"
	# Nothing else is left of the bundle.
	[ "$(ls "$(dirname "$log")")" = console.log ]

	run -0 --separate-stderr crictl inspectp "$pod"
	jq -e --arg t "$text" '.status.state == "SANDBOX_NOTREADY" and (.info.reason | contains($t))' <<<"$output"

	log_of "$pod" | grep 'error huskd: the virtual machine of a pod ended' | grep -F "$text"
	log_of "$pod" | grep 'error shim: the VM ended' | grep -F "$text"

	# The next huskd finds the pod as it is, and its removal takes the console along.
	kill9_huskd main
	start_huskd main
	run -0 --separate-stderr husk inspect "$ct"
	jq -e --arg t "$text" 'any(.[0].Husk.PodInfo.console[]; contains($t))' <<<"$output"
	crictl rmp -f "$pod"
	[ ! -e "$log" ]
}

@test "what a guest writes on its console can be shown on a terminal" {
	privileged noisy sh -c '
		[ -e /dev/kmsg ] || mknod /dev/kmsg c 1 11
		printf "<3>hello \033[31mred\007 \377end\n" >/dev/kmsg
		echo said
		sleep 1000'
	log=$HUSK_E2E/main/pods/$pod/console.log
	told() { grep -q 'hello ' "$log"; }
	wait_until 20 told
	grep -F 'hello \x1b[31mred\x07 \xffend' "$log"
	[ -z "$(LC_ALL=C tr -d '\11\12\40-\176' <"$log")" ]
	run -0 --separate-stderr husk inspect "$ct"
	jq -e '.[0].Husk.PodInfo | (.console | length > 0) and (has("reason") | not)' <<<"$output"
}

@test "a pod in order says nothing on its console, and every line of its log carries its id" {
	husk run -d --name quiet "$BUSYBOX" sleep 1000
	run -0 --separate-stderr husk inspect quiet
	pod=$(jq -r '.[0].Husk.Pod' <<<"$output")
	[ -f "$HUSK_E2E/main/pods/$pod/console.log" ]
	# On a real CPU the kernel tells how it was built; with QEMU's there is nothing to tell.
	if said=$(grep -v 'Spectre V2 : Kernel not compiled with retpoline' "$HUSK_E2E/main/pods/$pod/console.log"); then
		echo "$said"
		false
	fi
	husk rm -f quiet
	log_of "$pod" | grep -q ' shim: '
	log_of "$pod" | grep -q ' husk-vmm: '
	# Programs of no pod: the probe at huskd's start.
	without=$(grep -E ' (shim|husk-vmm): ' "$HUSK_E2E/main/huskd.log" | grep -v ' pod=' || true)
	[ -z "$without" ] || { echo "$without"; false; }
}
