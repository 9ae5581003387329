#!/usr/bin/env bats
# Layers: what many of them become, and what a tar may and may not say. Needs root and the packages of
# hack/install-deps. HUSK_BUILD is the build directory (default: build).

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.."
	export HUSK_BUILD=${HUSK_BUILD:-build}
	HUSK_BUILD=$(cd "$HUSK_BUILD" && pwd)
	export TOOL=$HUSK_BUILD/test/image-tool WORKER=$HUSK_BUILD/bin/husk-image-worker
	export IMAGE_TOOL_WORKER=$WORKER IMAGE_TOOL_ARCH=amd64
	export HERE=$PWD/test/image
	export PATH=$PATH:/sbin:/usr/sbin
	export WORK=$BATS_FILE_TMPDIR
	"$HERE/layered-images" "$WORK/oci"
	local port i
	port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	export MOCK=127.0.0.1:$port
	"$HERE/mock-registry" "$WORK/oci" "$port" >"$WORK/mock.log" 2>&1 3>&- &
	echo $! >"$WORK/mock.pid"
	for ((i = 0; i < 50; i++)); do
		curl -s -o /dev/null "http://$MOCK/" && break
		sleep 0.1
	done
}

teardown_file() {
	kill "$(cat "$WORK/mock.pid")" || true
}

setup() {
	STORE=$BATS_TEST_TMPDIR/store
	DISK=$BATS_TEST_TMPDIR/disk
	M=$BATS_TEST_TMPDIR/m
	mkdir "$M"
}

teardown() {
	local d
	mountpoint -q "$M" && umount "$M"
	for d in "$M".l*; do mountpoint -q "$d" && umount "$d"; done
	return 0
}

tool() { timeout 120 "$TOOL" "$STORE" "$@"; }

mount_image() { # mount_image REF: at $M, as a container sees it
	local path lower= k=0
	for path in $(tool layers "$(tool get "$1" | cut -d' ' -f1)"); do
		e2fsck -fn "$path" >/dev/null 2>&1
		k=$((k + 1))
		mkdir -p "$M.l$k"
		mount -o ro,loop "$path" "$M.l$k"
		lower=$M.l$k${lower:+:$lower}
	done
	mount -t overlay -o "lowerdir=$lower" overlay "$M"
}

# Everything about the files of a tree but the times of directories, whose entries come and go, and the
# number of links, of which some may lie in lower layers only.
listing() {
	(cd "$1" && find . -mindepth 1 \( -type d -printf '%p %y %m %U %G\n' -o -printf '%p %y %m %U %G %s %T@ %l\n' \) | sort
		find . -mindepth 1 -type f -print0 | sort -z | xargs -0 sha256sum
		find . -mindepth 1 \( -type f -o -type d \) -print0 | sort -z | xargs -0 getfattr -h -d -m '^user' 2>/dev/null)
}

# unpack NAME [ARG]...: $DISK from the blob $WORK/odd/NAME
unpack() {
	local blob=$WORK/odd/$1 kind=gzip
	shift
	case $blob in
	*.tar) kind=none ;;
	*.zst) kind=zstd ;;
	esac
	rm -f "$DISK"
	"$WORKER" unpack --layers $kind --id "sha256:$(printf '0%.0s' {1..64})" "$@" 3<>"$DISK" <"$blob"
}

# accepted NAME: mounted at $M
accepted() {
	run unpack "$1"
	echo "$1: $output"
	[[ $output == '{"diff_ids":'* ]]
	e2fsck -fn "$DISK" >"$DISK.log" 2>&1 || { cat "$DISK.log"; false; }
	mount -o ro,loop "$DISK" "$M"
}

# refused NAME ERRNO TEXT
refused() {
	run unpack "$1"
	echo "$1: $output"
	[[ $output == *"\"errno\":-$2,"* ]]
	[[ $output == *"$3"* ]]
}

@test "an image of 17, 40, 128 layers has at most 16 disks, and is what umoci makes of it" {
	local n
	for n in 17 40 128; do
		tool pull "$MOCK/ok/layers$n"
		[ "$(tool layers "$(tool get "$MOCK/ok/layers$n" | cut -d' ' -f1)" | wc -l)" = 16 ]
		umoci unpack --image "$WORK/oci/layers$n:latest" "$BATS_TEST_TMPDIR/u$n" 2>/dev/null
		mount_image "$MOCK/ok/layers$n"
		listing "$BATS_TEST_TMPDIR/u$n/rootfs" >"$BATS_TEST_TMPDIR/want"
		listing "$M" >"$BATS_TEST_TMPDIR/got"
		teardown
		diff "$BATS_TEST_TMPDIR/want" "$BATS_TEST_TMPDIR/got"
		[ "$(wc -l <"$BATS_TEST_TMPDIR/got")" -gt 200 ]
	done
}

@test "merged disks are the same bytes each time, and are shared" {
	tool pull "$MOCK/ok/layers40"
	cp -r "$STORE/layers" "$BATS_TEST_TMPDIR/first"
	tool rm "$MOCK/ok/layers40"
	[ -z "$(ls "$STORE/layers/sha256")" ]
	tool pull "$MOCK/ok/layers40"
	diff -r "$BATS_TEST_TMPDIR/first" "$STORE/layers"
	: >"$WORK/mock.log"
	tool pull "$MOCK/redirect/layers40"
	! grep -q "blobs/sha256:.*" <(grep -v "$(jq -r .config.digest "$WORK/oci/layers40/blobs/sha256/$(
		jq -r '.manifests[0].digest' "$WORK/oci/layers40/index.json" | cut -d: -f2)")" "$WORK/mock.log")
}

@test "several pulls of one image of many layers at once" {
	run tool pull-many "$MOCK/ok/layers40" "$MOCK/ok/layers40:latest" "$MOCK/redirect/layers40"
	echo "$output"
	[ "$status" -eq 0 ]
	[ "$(grep -c total_ms <<<"$output")" = 3 ]
	[ "$(ls "$STORE/layers/sha256" | wc -l)" = 16 ]
}
