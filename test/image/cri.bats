#!/usr/bin/env bats
# CRI's ImageService against a real huskd and a real registry; no VM. Needs root and the packages of
# hack/install-deps. HUSK_BUILD is the build directory (default: build).

load common

setup_file() {
	image_env
	export OCI=${HUSK_CACHE:-/var/cache/husk}/images/oci
	"$IMAGES/make-images" "$OCI" busybox torture >/dev/null 2>&1
	start_registry "$OCI" busybox torture
}

teardown_file() { stop_registry; }

start_huskd() {
	local i
	printf '%s\n' "$1" >"$WORK/huskd.yaml"
	"$BIN/huskd" --config "$WORK/huskd.yaml" --root "$BATS_TEST_TMPDIR/root" --state "$BATS_TEST_TMPDIR/state" \
		--listen "unix://$WORK/husk.sock" --backend qemu </dev/null >>"$WORK/huskd.log" 2>&1 3>&- &
	PID=$!
	for ((i = 0; i < 100; i++)); do
		husk version >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	cat "$WORK/huskd.log"
	return 1
}

teardown() {
	kill "$PID" && wait "$PID" || true
}

husk() { timeout 60 "$BIN/husk" --endpoint "unix://$WORK/husk.sock" "$@"; }

@test "what the kubelet sees of images" {
	start_huskd ""
	timeout 120 "$HERE/cri-images" "unix://$WORK/husk.sock" "$REG" "$OCI"
}

@test "pinned images, and no kept blobs, by the settings of huskd" {
	start_huskd "images: {keep-blobs: false, pinned: [\"$REG/library/busybox\"]}"
	husk pull -q "$REG/library/busybox" "$REG/library/torture"
	"$HERE/../e2e/cri-client" --runtime-endpoint "unix://$WORK/husk.sock" call ListImages '{}' >"$WORK/list"
	[ "$(jq -r '.images[] | select(.pinned) | .repoTags[]' "$WORK/list")" = "$REG/library/busybox:latest" ]
	husk prune -a -f
	[ "$(husk images -q | wc -l)" = 1 ]
	[ -z "$(find "$BATS_TEST_TMPDIR/root/images/blobs" -size +64k)" ]
}
