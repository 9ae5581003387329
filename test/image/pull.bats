#!/usr/bin/env bats
# The image library against a real registry and a misbehaving one. Needs root and the packages of
# hack/install-deps. HUSK_BUILD is the build directory (default: build).

bats_require_minimum_version 1.5.0
load common

setup_file() {
	image_env
	export IMAGE_TOOL_RETRY_MS=1
	"$IMAGES/make-images" "$WORK/oci" busybox torture
	"$HERE/odd-images" "$WORK/odd"
	start_registry "$WORK/oci"
	MOCK_PORT=$(free_port)
	export MOCK_PORT MOCK=127.0.0.1:$MOCK_PORT
	mock "$WORK/odd" "$WORK/mock" "$MOCK_PORT"
}

teardown_file() {
	kill "$(cat "$WORK/mock.pid")" || true
	stop_registry
}

setup() {
	STORE=$BATS_TEST_TMPDIR/store
}

tool() { timeout 60 "$TOOL" "$STORE" "$@"; }

# Nothing of a failed pull is left: no image, no layer, no temporary file, no process.
nothing_left() {
	[ -z "$(tool list)" ]
	[ -z "$(ls "$STORE/layers/sha256")" ]
	[ -z "$(ls "$STORE/tmp")" ]
}

# refused REF CODE PART-OF-TEXT
refused() {
	run tool pull "$1"
	echo "$1: $output"
	[ "$status" -eq 1 ]
	[[ $output == "error $2 "* ]]
	[[ $output == *"$3"* ]]
	nothing_left
}

# All layers of an image, mounted as a container sees them.
mount_image() { # mount_image REF DIR
	local id path lower= k=0
	id=$(tool get "$1" | cut -d' ' -f1)
	for path in $(tool layers "$id"); do
		e2fsck -fn "$path" >/dev/null 2>&1
		k=$((k + 1))
		mkdir -p "$2.l$k"
		mount -o ro,loop "$path" "$2.l$k"
		lower=$2.l$k${lower:+:$lower}
	done
	mkdir -p "$2.l0" "$2"
	mount -t overlay -o "lowerdir=$lower:$2.l0" overlay "$2"
}

umount_image() {
	local d
	umount "$1"
	for d in "$1".l[1-9]*; do umount "$d"; done
}

@test "an image from a real registry is what its layers say" {
	tool pull "$REG/library/torture"
	mount_image "$REG/library/torture" "$BATS_TEST_TMPDIR/m"
	run "$IMAGES/check-torture" "$BATS_TEST_TMPDIR/m"
	umount_image "$BATS_TEST_TMPDIR/m"
	echo "$output"
	[ "$status" -eq 0 ]
	# 3 GiB stay sparse
	[ "$(du -s "$STORE/layers" | cut -f1)" -lt 50000 ]
}

@test "the same layer gives the same bytes" {
	tool pull "$REG/library/torture"
	cp -r "$STORE/layers" "$BATS_TEST_TMPDIR/first"
	tool rm "$REG/library/torture"
	nothing_left
	tool pull "$REG/library/torture"
	diff -r "$BATS_TEST_TMPDIR/first" "$STORE/layers"
}

@test "every form of a name finds the image, and removal takes all of them" {
	tool pull "$MOCK/ok/good"
	tool pull "$MOCK/redirect/good"
	local line id digest
	line=$(tool get "$MOCK/ok/good")
	id=${line%% *}
	[[ $line == *"user=1000 "* || $line == *"user=1000"* ]]
	digest=$(sed 's/.*digests=\([^, ]*\).*/\1/' <<<"$line")
	[ "$(tool get "$MOCK/ok/good:latest")" = "$line" ]
	[ "$(tool get "$digest")" = "$line" ]
	[ "$(tool get "$id")" = "$line" ]
	[ "$(tool get "${id:7:12}")" = "$line" ]
	[ "$(tool list | wc -l)" = 1 ]
	tool rm "${id:7:12}"
	nothing_left
	tool rm "$MOCK/ok/good"
}

@test "name@digest is found after save, remove and load, by index and by manifest" {
	local index manifest name=$MOCK/ok/index file=$BATS_TEST_TMPDIR/index.tar
	index=$(jq -r '.manifests[0].digest' "$WORK/odd/index/index.json")
	manifest=$(jq -r '.manifests[] | select(.platform.architecture == "amd64").digest' \
		"$WORK/odd/index/blobs/sha256/${index#*:}")
	tool pull "$name"
	tool get "$name@$index"
	tool get "$name@$manifest"
	tool save "$file" "$name:latest"
	tool rm "$name"
	run tool get "$name@$index"
	[ "$status" -eq 1 ]
	tool load "$file"
	tool get "$name@$index" | grep "digests=$name@$index "
	tool get "$name@$manifest"
	tool get "$name:latest@$index"
	# once more: the index is kept, and goes along
	tool save "$file.2" "$name:latest"
	cmp "$file" "$file.2"
	tool tag "$name" other.example/x:1
	tool get "other.example/x@$index"
	tool rm "$name@$manifest"
	nothing_left
	# an archive of docker's form alone: its manifest is made here
	mkdir "$BATS_TEST_TMPDIR/docker"
	tar -C "$BATS_TEST_TMPDIR/docker" -xf "$file"
	rm "$BATS_TEST_TMPDIR/docker/index.json"
	tar -C "$BATS_TEST_TMPDIR/docker" -cf "$file" .
	tool load "$file"
	tool get "$(tool get "$name" | sed 's/.*digests=\([^ ,]*\).*/\1/')"
}

@test "a pull by digest has no tag" {
	local d
	d=$(jq -r '.manifests[0].digest' "$WORK/odd/good/index.json")
	tool pull "$MOCK/ok/good@$d"
	tool get "$MOCK/ok/good@$d" | grep -q "tags= digests=$MOCK/ok/good@$d "
	refused_by_name=$(tool list "$MOCK/ok/good" | wc -l)
	[ "$refused_by_name" = 0 ]
}

@test "all forms of layers: plain, gzip, several members, zstd; none at all, the same twice" {
	local n
	for n in plain zstd members good twice; do
		tool pull "$MOCK/ok/$n"
	done
	[ "$(ls "$STORE/layers/sha256" | wc -l)" = 1 ]
	tool pull "$MOCK/ok/empty"
	tool pull "$MOCK/ok/index"
	mount_image "$MOCK/ok/zstd" "$BATS_TEST_TMPDIR/m"
	run cat "$BATS_TEST_TMPDIR/m/hello"
	umount_image "$BATS_TEST_TMPDIR/m"
	[ "$output" = hello ]
}

@test "what a layer is said to be and what it is: the first bytes decide, in pulls and loads" {
	local said is name count=0
	for said in none gzip zstd d-none d-gzip d-zstd; do
		for is in none gzip zstd; do
			name=said-$said-is-$is
			tool pull "$MOCK/ok/$name"
			mount_image "$MOCK/ok/$name" "$BATS_TEST_TMPDIR/$name"
			[ "$(cat "$BATS_TEST_TMPDIR/$name/hello")" = hello ]
			umount_image "$BATS_TEST_TMPDIR/$name"
			tool rm "$MOCK/ok/$name"
			nothing_left
			# the layers' type of an OCI archive is as wrong as a registry's
			tar -C "$WORK/odd/$name" -cf "$BATS_TEST_TMPDIR/$name.tar" .
			tool load "$BATS_TEST_TMPDIR/$name.tar" said/is:1
			tool get said/is:1
			tool rm said/is:1
			nothing_left
			count=$((count + 1))
		done
	done
	[ "$count" -eq 18 ]
}

@test "configurations of old pushers are taken, artifacts are refused" {
	local name
	for name in octets json html empty absent charset; do
		tool pull "$MOCK/ok/config-$name"
		tool rm "$MOCK/ok/config-$name"
	done
	for name in helm notation nothing; do
		refused "$MOCK/ok/config-$name" -95 "not a container image but an artifact of type \"application/vnd."
	done
	refused "$MOCK/ok/cosign" -95 "an artifact, not a container image"
}

@test "nothing of a shared base is fetched again" {
	local base
	base=$(jq -r '.layers[0].digest' "$WORK/odd/good/blobs/sha256/$(
		jq -r '.manifests[0].digest' "$WORK/odd/good/index.json" | cut -d: -f2)")
	tool pull "$MOCK/ok/good"
	: >"$WORK/mock.log"
	IMAGE_TOOL_PROGRESS=1 run tool pull "$MOCK/ok/second"
	[[ $output == *shared* ]]
	run -1 grep "$base" "$WORK/mock.log"
	[ "$(ls "$STORE/layers/sha256" | wc -l)" = 2 ]
	# the base stays as long as one of the two needs it
	tool rm "$MOCK/ok/good"
	[ "$(ls "$STORE/layers/sha256" | wc -l)" = 2 ]
	tool rm "$MOCK/ok/second"
	nothing_left
}

@test "pulls at the same time share the work" {
	: >"$WORK/mock.log"
	run tool pull-many "$MOCK/slow/random4" "$MOCK/slow/random4" "$MOCK/slow/random4:latest"
	echo "$output"
	[ "$status" -eq 0 ]
	[ "$(grep -c 'sha256:.*total_ms' <<<"$output")" = 3 ]
	local layer
	layer=$(jq -r '.layers[0].digest' "$WORK/odd/random4/blobs/sha256/$(
		jq -r '.manifests[0].digest' "$WORK/odd/random4/index.json" | cut -d: -f2)")
	[ "$(grep -c "^/.*blobs/$layer" "$WORK/mock.log")" = 1 ]
}

@test "a cancelled pull leaves nothing, and the next one works" {
	local ms
	for ms in 0 20 60 150 400; do
		tool pull-cancel "$MOCK/slow/random" "$ms"
		nothing_left
	done
	tool pull "$MOCK/ok/random"
}

@test "tokens: anonymous Bearer flow" {
	: >"$WORK/mock.log"
	refused "$MOCK/tokenfile/good" -71 "bad address"
	tool pull "$MOCK/token/good"
	[ "$(grep -c '^/token?' "$WORK/mock.log")" = 1 ]
}

@test "a token that does not help is no endless loop" {
	refused "$MOCK/tokenloop/good" -13 "401"
}

@test "Basic credentials" {
	local port
	port=$(free_port)
	# docker-registry takes bcrypt only
	python3 -W ignore -c 'import crypt
print("user:" + crypt.crypt("pass", crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)))' \
		>"$BATS_TEST_TMPDIR/htpasswd"
	HUSK_REGISTRY_AUTH=$BATS_TEST_TMPDIR/htpasswd "$IMAGES/registry" start "$BATS_TEST_TMPDIR/reg" "$port"
	skopeo --insecure-policy copy -q --dest-creds user:pass --dest-tls-verify=false \
		"oci:$WORK/oci/busybox:latest" "docker://127.0.0.1:$port/library/busybox:latest"
	run tool pull "127.0.0.1:$port/library/busybox"
	local anonymous=$output
	run tool pull "127.0.0.1:$port/library/busybox" user wrong
	local wrong=$output
	run tool pull "127.0.0.1:$port/library/busybox" user pass
	"$IMAGES/registry" stop "$BATS_TEST_TMPDIR/reg" "$port"
	[[ $anonymous == "error -13 "*"no credentials"* ]]
	[[ $wrong == "error -13 "*"credentials do not help"* ]]
	[ "$status" -eq 0 ]
}

@test "no registry, no image, no access, no patience, no service" {
	refused "no-such-host.invalid/x" -113 "unknown host"
	refused "127.0.0.1:1/x" -111 "refused"
	refused "$MOCK/ok/missing" -2 "404"
	refused "$REG/library/missing" -2 "404"
	refused "$MOCK/e401/good" -13 "401"
	refused "$MOCK/e403/good" -13 "mock says 403"
	refused "$MOCK/e429/good" -16 "429"
	refused "$MOCK/e500/good" -121 "500"
}

@test "answers that are none" {
	refused "$MOCK/huge/good" -27 "answer of more than"
	refused "$MOCK/garbage/good" -71 "not JSON"
	refused "$MOCK/redirectfile/good" -71 "redirects"
	refused "$MOCK/redirectloop/good" -71 "redirects more than"
	refused "$MOCK/wrongconfig/good" -74 "wrong digest"
}

@test "no image for this machine" {
	refused "$MOCK/ok/index-other" -95 "linux/s390x, linux/ppc64le"
	refused "$MOCK/ok/arch" -95 "linux/s390x"
	refused "$MOCK/ok/index-index" -95 "index in it"
	refused "$MOCK/ok/foreign" -95 "foreign"
}

@test "blobs that are not what the manifest says" {
	refused "$MOCK/wrongblob/good" -74 "wrong digest"
	refused "$MOCK/wrongblob/random" -74 "wrong digest"
	refused "$MOCK/longer/good" -74 "larger than"
	refused "$MOCK/short/good" -74 "truncated"
	refused "$MOCK/cut/good" -121 "broke the connection"
	refused "$MOCK/cut/random" -121 "broke the connection"
	refused "$MOCK/ok/diff-id" -74 "configuration says"
	refused "$MOCK/ok/count" -71 "1 layers, the configuration 0"
}

@test "layers that are damaged" {
	refused "$MOCK/ok/notar" -74 "layer 1 of 1"
	refused "$MOCK/ok/cut-tar" -74 "runcated"
	refused "$MOCK/ok/cut-gzip" -74 "truncated"
	refused "$MOCK/ok/crc" -74 "wrong checksum"
}

@test "layers that want out" {
	refused "$MOCK/ok/dotdot" -71 '".."'
	refused "$MOCK/ok/symlink" -71 "passes through the symbolic link"
	refused "$MOCK/ok/hardlink" -71 'hard link to'
	refused "$MOCK/ok/hardlink-missing" -71 "not in this layer"
}

@test "layers with too much of something" {
	refused "$MOCK/ok/many-xattrs" -27 "extended attributes"
	refused "$MOCK/ok/big-xattr" -71 "extended attribute"
	refused "$MOCK/ok/long-name" -71 "more than"
	refused "$MOCK/ok/bad-id" -71 "out of range"
}

@test "a tampered blob of a real registry" {
	cp -r "$WORK/registry" "$BATS_TEST_TMPDIR/reg"
	rm "$BATS_TEST_TMPDIR/reg/registry.pid"
	local port hex f
	port=$(free_port)
	"$IMAGES/registry" start "$BATS_TEST_TMPDIR/reg" "$port"
	hex=$(curl -s -H 'Accept: application/vnd.oci.image.manifest.v1+json' \
		"http://127.0.0.1:$port/v2/library/busybox/manifests/latest" | jq -r '.layers[0].digest' | cut -d: -f2)
	f=$BATS_TEST_TMPDIR/reg/data/docker/registry/v2/blobs/sha256/${hex:0:2}/$hex/data
	printf 'XXXX' | dd of="$f" bs=1 seek=50000 conv=notrunc status=none
	run tool pull "127.0.0.1:$port/library/busybox"
	local wrong=$output
	truncate -s -1000 "$f"
	run tool pull "127.0.0.1:$port/library/busybox"
	"$IMAGES/registry" stop "$BATS_TEST_TMPDIR/reg" "$port"
	echo "$wrong / $output"
	[[ $wrong == "error -74 "*"wrong digest"* ]]
	[[ $output == "error -74 "*"truncated"* ]]
	nothing_left
}

@test "zeros take no space" {
	tool pull "$MOCK/ok/zeros"
	[ "$(du -s "$STORE/layers" | cut -f1)" -lt 200 ]
}

@test "a full disk: no half image, and the space comes back" {
	truncate -s 24M "$BATS_TEST_TMPDIR/disk"
	mkfs.ext4 -q "$BATS_TEST_TMPDIR/disk"
	mkdir "$STORE"
	mount -o loop "$BATS_TEST_TMPDIR/disk" "$STORE"
	tool list
	local before after
	before=$(df --output=avail "$STORE" | tail -1)
	run tool pull "$MOCK/ok/random"
	local text=$output left=0
	tool pull "$MOCK/ok/good" || left=1
	tool rm "$MOCK/ok/good"
	nothing_left || left=2
	sync -f "$STORE"
	after=$(df --output=avail "$STORE" | tail -1)
	umount "$STORE"
	echo "$text; before $before after $after"
	[[ $text == "error -28 "*"No space left"* ]]
	[ $left = 0 ]
	[ $((before - after)) -lt 200 ]
}

@test "kill -9 of a worker at any moment: an error, nothing left, and the next pull works" {
	local k pid victim killed=0
	for k in 1 2 3 4 5 6 7 8 9 10; do
		timeout 60 "$TOOL" "$STORE" pull "$MOCK/slow/random" >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- &
		pid=$!
		sleep "0.0$((RANDOM % 10))"
		sleep "0.$((k % 4))"
		# a child of image-tool, or (the builder) a grandchild
		victim=$(pgrep -P "$(pgrep -P $pid image-tool || echo $pid)" husk-image | shuf -n 1 || true)
		[ $((k % 3)) -ne 0 ] || victim=$(pgrep -P "${victim:-0}" husk-image || echo "$victim")
		[ -z "$victim" ] || kill -9 "$victim" 2>/dev/null && killed=$((killed + 1))
		wait $pid && continue
		grep -q "^error -" "$BATS_TEST_TMPDIR/out"
		nothing_left
	done
	echo "killed $killed"
	[ $killed -gt 3 ]
	tool pull "$MOCK/ok/random"
}

@test "kill -9 of the owner at any moment: the next start finds a clean store" {
	local k pid
	for k in 0 1 2 3 4 5 6 7; do
		timeout 60 "$TOOL" "$STORE" pull "$REG/library/torture" >/dev/null 2>&1 3>&- &
		pid=$!
		sleep "0.$k"
		pkill -9 -P $pid image-tool || true
		kill -9 $pid 2>/dev/null || true
		wait $pid || true
		# all or nothing; layers that were finished wait for the next pull
		if [ -n "$(tool list)" ]; then
			[ "$(ls "$STORE/layers/sha256" | wc -l)" = 6 ]
			tool rm "$REG/library/torture"
		fi
		[ -z "$(tool list)" ]
		[ -z "$(ls "$STORE/tmp")" ]
	done
	tool pull "$REG/library/torture"
}

@test "held layers outlive their image" {
	tool pull "$MOCK/ok/good"
	local id path
	id=$(tool get "$MOCK/ok/good" | cut -d' ' -f1)
	path=$(tool layers "$id")
	tool hold "$id" container-1
	tool rm "$MOCK/ok/good"
	[ -z "$(tool list)" ]
	[ -e "$path" ]
	tool release container-1
	nothing_left
}

@test "a scratch disk is sparse, empty and quick" {
	run tool scratch "$BATS_TEST_TMPDIR/disk"
	[ "$status" -eq 0 ]
	e2fsck -fn "$BATS_TEST_TMPDIR/disk"
	[ "$(du "$BATS_TEST_TMPDIR/disk" | cut -f1)" -lt 512 ]
	mkdir "$BATS_TEST_TMPDIR/m"
	mount -o loop "$BATS_TEST_TMPDIR/disk" "$BATS_TEST_TMPDIR/m"
	mkdir "$BATS_TEST_TMPDIR/m/upper" "$BATS_TEST_TMPDIR/m/work"
	cp -r /etc "$BATS_TEST_TMPDIR/m/upper/"
	umount "$BATS_TEST_TMPDIR/m"
	e2fsck -fn "$BATS_TEST_TMPDIR/disk"
}
