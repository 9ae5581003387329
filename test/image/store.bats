#!/usr/bin/env bats
# What the store is after crashes, on full disks, and when its files decay. A real registry; no
# huskd. Needs root and the packages of hack/install-deps. HUSK_BUILD is the build directory.

load common

setup_file() {
	image_env
	export IMAGE_TOOL_RETRY_MS=1
	"$IMAGES/make-images" "$WORK/oci" busybox torture
	start_registry "$WORK/oci"
	export TORTURE=$REG/library/torture BUSYBOX=$REG/library/busybox
	# what the layers are when nothing goes wrong
	"$TOOL" "$WORK/good" pull "$TORTURE"
}

teardown_file() { stop_registry; }

setup() {
	STORE=$BATS_TEST_TMPDIR/store
}

teardown() {
	! mountpoint -q "$STORE" || umount "$STORE"
}

tool() { timeout 60 "$TOOL" "$STORE" "$@"; }

# No image, no layer, no blob, nothing half made.
empty() {
	[ -z "$(tool list)" ]
	[ -z "$(find "$STORE"/{layers,blobs,ingest,tmp} -type f)" ]
}

# The rows' sums are what the disk says. SQLite's -shm and -wal come and go with the process.
exact() {
	local told real
	told=$(tool df | sed 's/.*bytes=\([0-9]*\).*/\1/')
	real=$(du -s --block-size=1 "$STORE" | cut -f1)
	echo "told $told real $real"
	[ $((told - real)) -ge 0 ] && [ $((told - real)) -le 65536 ]
}

@test "kill -9 at 50 random moments: the next pull works and all is as it should be" {
	local k pid whole=0 resumed=0
	for k in $(seq 50); do
		"$TOOL" "$STORE" pull "$TORTURE" >/dev/null 2>&1 3>&- &
		pid=$!
		sleep "0.$(printf %03d $((RANDOM % 400)))"
		kill -9 $pid 2>/dev/null || true
		wait $pid 2>/dev/null || true
		[ ! -d "$STORE/ingest" ] || [ -z "$(find "$STORE/ingest" -type f -size +0)" ] ||
			resumed=$((resumed + 1))
		# all or nothing is to be seen
		if [ -n "$(tool list)" ]; then
			whole=$((whole + 1))
			diff -r "$WORK/good/layers" "$STORE/layers"
			tool rm "$TORTURE"
			# a blob that had not become complete waits for a day
			tool prune blobs
			empty
		fi
		[ -z "$(ls "$STORE/tmp")" ]
	done
	echo "whole $whole, with partial blobs $resumed"
	tool pull "$TORTURE"
	diff -r "$WORK/good/layers" "$STORE/layers"
	run tool verify
	[ "$status" -eq 0 ]
	exact
	tool rm "$TORTURE"
	tool prune blobs
	empty
	exact
}

@test "a full disk at any stage: nothing to be seen, and the space comes back" {
	local size before after full=0
	for ((size = 400; size < 60000; size += 450)); do
		mkdir -p "$STORE"
		mount -t tmpfs -o "size=${size}k" none "$STORE"
		if ! tool list; then # not even a database
			umount "$STORE"
			continue
		fi
		before=$(df --output=avail "$STORE" | tail -1)
		run tool pull "$TORTURE"
		echo "$size: $output"
		[ "$status" -ne 0 ] || break
		full=$((full + 1))
		[[ $output == *"error -28 "* ]]
		empty
		after=$(df --output=avail "$STORE" | tail -1)
		echo "$size: $before -> $after KiB"
		[ $((before - after)) -lt 64 ]
		# something smaller fits again
		[ "$size" -lt 5000 ] || tool pull "$BUSYBOX"
		umount "$STORE"
	done
	[ "$full" -ge 8 ]
	tool verify
}

@test "a disk that somebody else has filled: the store opens, images go, and pulls work again" {
	local id
	mkdir -p "$STORE"
	mount -t tmpfs -o size=64m none "$STORE"
	tool pull "$TORTURE"
	tool pull "$BUSYBOX"
	tool hold "$(tool get "$TORTURE" | cut -d' ' -f1)" box
	cat /dev/zero >"$STORE/full" 2>/dev/null || true
	[ "$(df --output=avail "$STORE" | tail -1)" -eq 0 ]
	tool get "$BUSYBOX"
	cat /dev/zero >>"$STORE/full" 2>/dev/null || true
	# a container goes, and its image
	tool rm "$TORTURE"
	tool release box
	cat /dev/zero >>"$STORE/full" 2>/dev/null || true
	tool rm "$BUSYBOX"
	[ -z "$(tool list)" ]
	[ -z "$(ls "$STORE/layers/sha256" "$STORE/tmp" | grep ext4)" ]
	# room is back
	rm "$STORE/full"
	tool pull "$BUSYBOX"
	tool verify
	umount "$STORE"
}

# bomb DIR: an OCI layout "bomb" of one layer, 400 MB of the same line as 400 kB.
bomb() {
	python3 - "$1/bomb" <<-'PY'
		import gzip, hashlib, io, json, os, sys, tarfile
		def sha(b):
		    return hashlib.sha256(b).hexdigest()
		def blob(b):
		    open(blobs + "/" + sha(b), "wb").write(b)
		    return "sha256:" + sha(b)
		blobs = sys.argv[1] + "/blobs/sha256"
		os.makedirs(blobs)
		f = io.BytesIO()
		with tarfile.open(fileobj=f, mode="w") as t:
		    i = tarfile.TarInfo("big")
		    i.size = 400 << 20
		    t.addfile(i, io.BytesIO(b"husk\n" * (i.size // 5 + 1)))
		tar = f.getvalue()
		zipped = gzip.compress(tar, 1)
		v1 = "application/vnd.oci.image."
		config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]}, "rootfs":
		                     {"type": "layers", "diff_ids": ["sha256:" + sha(tar)]}}).encode()
		manifest = json.dumps({"schemaVersion": 2, "config": {"mediaType": v1 + "config.v1+json", "digest":
		                       blob(config), "size": len(config)}, "layers": [{"mediaType": v1 +
		                       "layer.v1.tar+gzip", "digest": blob(zipped), "size": len(zipped)}]}).encode()
		json.dump({"schemaVersion": 2, "manifests": [{"mediaType": v1 + "manifest.v1+json", "digest":
		           blob(manifest), "size": len(manifest), "annotations":
		           {"org.opencontainers.image.ref.name": "latest"}}]}, open(sys.argv[1] + "/index.json", "w"))
		open(sys.argv[1] + "/oci-layout", "w").write('{"imageLayoutVersion":"1.0.0"}')
	PY
}

# Runs a command, and tells the least space that was free on the store's file system meanwhile, in KiB.
least_free() {
	python3 - "$STORE" "$BATS_TEST_TMPDIR/least" "$@" <<-'END' && status=0 || status=$?
		import os, subprocess, sys, time
		store, result, *command = sys.argv[1:]
		least = None
		pull = subprocess.Popen(command)
		while pull.poll() is None:
		    fs = os.statvfs(store)
		    free = fs.f_bavail * fs.f_frsize // 1024
		    least = free if least is None else min(least, free)
		    time.sleep(0.0002)
		open(result, "w").write(str(least))
		sys.exit(pull.returncode)
	END
	LEAST=$(cat "$BATS_TEST_TMPDIR/least")
}

@test "an image that unpacks to more than there is ends at the reserve, which is for others" {
	local d=$BATS_TEST_TMPDIR port before after
	port=$(free_port)
	bomb "$d/layouts"
	mock "$d/layouts" "$d/mock" "$port"
	mkdir "$STORE"
	mount -t tmpfs -o size=360m none "$STORE"
	export IMAGE_TOOL_RESERVE_KIB=$((200 * 1024))
	tool pull "$BUSYBOX"
	before=$(df --output=avail "$STORE" | tail -1)
	least_free timeout 60 "$TOOL" "$STORE" pull "127.0.0.1:$port/ok/bomb" >"$d/out" 2>&1
	kill "$(cat "$d/mock.pid")"
	sleep 0.5
	after=$(df --output=avail "$STORE" | tail -1)
	cat "$d/out"
	echo "free: $before, at least $LEAST, then $after KiB"
	[ "$status" -eq 1 ]
	grep -q "^error -28 .*No space left for images in $STORE: .*200.0 MiB have to stay free" "$d/out"
	# It was seen soon: far from the end of the disk.
	[ "$LEAST" -gt 1024 ]
	[ "$LEAST" -lt $((200 * 1024)) ]
	[ $((before - after)) -lt 64 ]
	[ -z "$(find "$STORE"/{ingest,tmp} -type f)" ]
	[ "$(tool list | wc -l)" = 1 ]
	tool verify
}

@test "no room for what the manifest says: nothing is fetched; what is kept for later goes first" {
	mkdir "$STORE"
	mount -t tmpfs -o size=100m none "$STORE"
	IMAGE_TOOL_RESERVE_KIB=1 tool pull "$BUSYBOX"
	local avail
	avail=$(df --output=avail "$STORE" | tail -1)
	export IMAGE_TOOL_RESERVE_KIB=$((avail - 100))
	run tool pull "$TORTURE"
	echo "$output"
	[ "$status" -eq 1 ]
	[[ $output == "error -28 "*"No space left for images in $STORE: "*" MiB are needed, "*"images.reserve-mib"* ]]
	[ -z "$(find "$STORE"/{ingest,tmp} -type f)" ]
	# an unfinished download of somebody else is in the way
	head -c 40M /dev/urandom >"$STORE/ingest/sha256/$(printf '1%.0s' {1..64})"
	avail=$(df --output=avail "$STORE" | tail -1)
	IMAGE_TOOL_RESERVE_KIB=$((avail - 100)) tool pull "$TORTURE"
	[ -z "$(find "$STORE"/ingest -type f)" ]
}

@test "decay is found, and the next pull repairs it" {
	tool pull "$TORTURE"
	tool pull "$BUSYBOX"
	tool verify
	local layer blob
	layer=$(ls -S "$STORE"/layers/sha256/* | head -1)
	blob=$(find "$STORE/blobs" -size +500k | head -1)
	printf X | dd of="$layer" bs=1 seek=1500000 conv=notrunc status=none
	printf X | dd of="$blob" bs=1 seek=1000 conv=notrunc status=none
	run tool verify
	echo "$output"
	[ "$status" -eq 1 ]
	[ "$(grep -c "bytes have changed" <<<"$output")" = 2 ]
	[[ $output == *"layer sha256:$(basename "$layer" .ext4) "*"have changed"* ]]
	[[ $output == *"blob sha256:$(basename "$blob") "*"have changed"* ]]
	[ "$(grep -c "of image" <<<"$output")" = 2 ]
	tool list | grep torture
	# only what is damaged is made anew, from the kept blob
	IMAGE_TOOL_PROGRESS=1 run tool pull "$TORTURE"
	[ "$(grep shared <<<"$output" | tail -1 | grep -o shared | wc -l)" = 4 ]
	tool verify
	diff -r "$WORK/good/layers/sha256/$(basename "$layer")" "$layer"
	# a layer's file that is cut
	truncate -s 1M "$layer"
	run tool verify "$TORTURE"
	[ "$status" -eq 1 ]
	tool pull "$TORTURE"
	tool verify "$TORTURE"
	exact
}

@test "a layer that decays together with its blob is fetched again" {
	tool pull "$BUSYBOX"
	tool verify
	local layer blob
	layer=$(find "$STORE/layers" -type f)
	blob=$(find "$STORE/blobs" -size +500k)
	printf X | dd of="$layer" bs=1 seek=100000 conv=notrunc status=none
	printf X | dd of="$blob" bs=1 seek=1000 conv=notrunc status=none
	run tool verify "$BUSYBOX"
	[ "$status" -eq 1 ]
	tool pull "$BUSYBOX"
	tool verify
	[ -e "$blob" ]
}

@test "the registry is not needed for a layer whose blob is kept" {
	tool pull "$BUSYBOX"
	tool verify
	local layer
	layer=$(find "$STORE/layers" -type f)
	truncate -s 1M "$layer"
	run tool verify
	[ "$status" -eq 1 ]
	export HUSK_REGISTRY_LOG=1
	"$IMAGES/registry" stop "$WORK/registry" "$REG_PORT"
	"$IMAGES/registry" start "$WORK/registry" "$REG_PORT"
	: >"$WORK/registry/registry.log"
	tool pull "$BUSYBOX"
	tool verify
	run grep "blobs/$(find "$STORE/blobs" -size +500k -printf 'sha256:%f')" "$WORK/registry/registry.log"
	[ "$status" -eq 1 ]
}

@test "a disk of many layers that decays is made anew from their blobs" {
	"$HERE/layered-images" "$WORK/layered" >/dev/null
	skopeo --insecure-policy copy -q --dest-tls-verify=false "oci:$WORK/layered/layers40" \
		"docker://$REG/layers40:latest"
	tool pull "$REG/layers40"
	[ "$(ls "$STORE/layers/sha256" | wc -l)" -le 16 ]
	tool verify
	cp -r "$STORE/layers" "$BATS_TEST_TMPDIR/good"
	local layer
	for layer in "$STORE"/layers/sha256/*; do
		truncate -s 8K "$layer"
	done
	run tool verify
	[ "$status" -eq 1 ]
	[ "$(grep -c "of image" <<<"$output")" = "$(ls "$STORE/layers/sha256" | wc -l)" ]
	tool pull "$REG/layers40"
	diff -r "$BATS_TEST_TMPDIR/good" "$STORE/layers"
	tool verify
	exact
	tool rm "$REG/layers40"
	empty
}

@test "names come and go" {
	tool pull "$BUSYBOX"
	tool pull "$TORTURE"
	tool tag "$BUSYBOX" other.example/b:2
	tool untag "$BUSYBOX" | grep "untagged $BUSYBOX:latest"
	[ "$(tool list other.example/b:2 | wc -l)" = 1 ]
	# the tag moves: what it leaves behind is dangling
	tool tag "$TORTURE" other.example/b:2
	[ "$(tool list | wc -l)" = 2 ]
	run tool prune dangling
	[[ $output == "images=1 layers=1 blobs=3 "* ]]
	[ "$(tool list | wc -l)" = 1 ]
	run tool prune blobs
	[[ $output == "images=0 layers=0 blobs=5 "* ]]
	tool verify
	exact
	run tool prune all
	[[ $output == "images=1 layers=6 blobs=2 "* ]]
	empty
}

@test "without kept blobs the compressed layers are gone, and the image is whole" {
	export IMAGE_TOOL_DROP_BLOBS=1
	tool pull "$TORTURE"
	tool list >/dev/null
	[ -z "$(find "$STORE/blobs" -size +60k)" ]
	[ "$(find "$STORE/blobs" -type f | wc -l)" = 2 ]
	diff -r "$WORK/good/layers" "$STORE/layers"
	tool verify
	exact
}
