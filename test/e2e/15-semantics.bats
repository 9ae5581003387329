# What CRI asks beyond the plain life of a pod (cri-semantics has the calls).

bats_require_minimum_version 1.5.0
load helpers

semantics() { run -0 "$HUSK_TOP/test/e2e/cri-semantics" "$1"; }

@test "a RunPodSandbox that was cancelled can be repeated with the same name" {
	semantics cancelled_run_can_be_repeated
	no_pod_left() { ! our_processes | grep -E 'containerd-shim-husk-v2|husk-vmm|qemu-system'; }
	wait_until 20 no_pod_left
}

@test "start failures: 127, 126, reason StartError, no second start" {
	semantics start_failures
}

@test "out of memory: 137 and OOMKilled" {
	semantics out_of_memory
}

@test "user, groups, capabilities, OOM score, working directory" {
	semantics user_and_capabilities
}

@test "StopContainer: grace, SIGKILL, a second call shortens, removal by force" {
	semantics stop
}

@test "ExecSync: caps, many at once, children left behind, cancelling" {
	semantics exec
}

@test "a terminal, and input that waits" {
	semantics terminal_and_input
}

@test "StopPodSandbox and RemovePodSandbox take all containers along" {
	semantics pod_takes_all_along
}

@test "what is refused, and with which code" {
	semantics refused
}
