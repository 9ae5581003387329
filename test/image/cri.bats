#!/usr/bin/env bats
# CRI's ImageService against a real huskd and a real registry; no VM. Needs root and the packages of
# hack/install-deps. HUSK_BUILD is the build directory (default: build).

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.."
	export HUSK_BUILD=${HUSK_BUILD:-build}
	HUSK_BUILD=$(cd "$HUSK_BUILD" && pwd)
	export BIN=$HUSK_BUILD/bin IMAGES=$PWD/test/images HERE=$PWD/test/image
	export WORK=$BATS_FILE_TMPDIR
	export OCI=${HUSK_CACHE:-/var/cache/husk}/images/oci
	"$IMAGES/make-images" "$OCI" busybox torture >/dev/null 2>&1
	local port
	for port in $(shuf -i 20000-30000 -n 20); do
		"$IMAGES/registry" start "$WORK/registry" "$port" 2>/dev/null && break
	done
	export PORT=$port REG=127.0.0.1:$port
	"$IMAGES/push-images" "$OCI" "$REG" busybox torture
}

teardown_file() {
	"$IMAGES/registry" stop "$WORK/registry" "$PORT"
}

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
