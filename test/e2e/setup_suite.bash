# Once for the whole suite: a directory of its own, a registry with the test images, one huskd, crictl.
# Everything that is started inherits HUSK_E2E, and the end of the suite proves that nothing that
# carries it is left.

load helpers

setup_suite() {
	export HUSK_E2E BATS_TEST_TIMEOUT=${BATS_TEST_TIMEOUT:-300}
	HUSK_E2E=$(mktemp -d /tmp/husk-e2e.XXXXXX)
	export HUSK_STORE=${HUSK_STORE_BASE:-$HUSK_E2E}
	HUSK_STORE=$(mktemp -d "$HUSK_STORE/store.XXXXXX")
	export HUSK_LOG_DIR=$HUSK_E2E/logs
	mkdir -p "$HUSK_LOG_DIR"

	local oci=$HUSK_CACHE/images/oci
	"$HUSK_TOP/test/fixtures/make-images" "$oci" >"$HUSK_E2E/images.log" 2>&1 ||
		{ cat "$HUSK_E2E/images.log" >&2; return 1; }
	local port
	port=$(free_port)
	"$HUSK_TOP/test/fixtures/registry" start "$HUSK_STORE/registry" "$port"
	export REGISTRY=127.0.0.1:$port
	"$HUSK_TOP/test/fixtures/push-images" "$oci" "$REGISTRY" busybox debian torture >"$HUSK_E2E/push.log" 2>&1 ||
		{ cat "$HUSK_E2E/push.log" >&2; return 1; }
	export BUSYBOX=$REGISTRY/library/busybox DEBIAN=$REGISTRY/library/debian
	export TORTURE=$REGISTRY/library/torture

	# Where the real crictl cannot be had, a client of our own sends the same calls.
	export CRICTL=$HUSK_TOP/test/e2e/cri-client
	local dir
	if dir=$("$HUSK_TOP/hack/get-cri-tools" 2>"$HUSK_E2E/crictl.log"); then
		CRICTL=$dir/crictl
	else
		echo "# test/e2e/cri-client takes the place of crictl: $(tail -n 1 "$HUSK_E2E/crictl.log")" >&3
	fi
	start_huskd main
	export HUSK_ENDPOINT=unix://$HUSK_E2E/main/husk.sock
	echo "# backend: $HUSK_BACKEND; $(crictl --version)" >&3
	"$HUSK_BIN/husk" pull "$BUSYBOX" >/dev/null 2>&1
}

teardown_suite() {
	local bad=0
	remove_all_pods main || bad=1
	stop_huskd main || bad=1
	"$HUSK_TOP/test/fixtures/registry" stop "$HUSK_STORE/registry" "${REGISTRY##*:}"
	# Shims and monitors need a moment to end after their last answer.
	wait_until 10 no_process_left || {
		echo "# processes that the suite left behind:" >&3
		our_processes | sed 's/^/# /' >&3
		bad=1
	}
	if grep -F "$HUSK_E2E" /proc/mounts >&2; then
		echo "# mounts left behind" >&3
		bad=1
	fi
	[ "$bad" = 0 ] || { tail -n 40 "$HUSK_E2E"/*/huskd.log | sed 's/^/# /' >&3; }
	our_processes | while read -r pid _; do kill -9 "$pid" 2>/dev/null; done
	rm -rf "$HUSK_E2E" "$HUSK_STORE"
	return "$bad"
}
