#!/usr/bin/env bats
# The commands for images against a real huskd and real registries; no VM. Needs root and the packages
# of hack/install-deps. HUSK_BUILD is the build directory (default: build).

bats_require_minimum_version 1.5.0

setup_file() {
	cd "$BATS_TEST_DIRNAME/../.."
	export HUSK_BUILD=${HUSK_BUILD:-build}
	HUSK_BUILD=$(cd "$HUSK_BUILD" && pwd)
	export BIN=$HUSK_BUILD/bin IMAGES=$PWD/test/images HERE=$PWD/test/image
	export PATH=$PATH:/sbin:/usr/sbin
	export WORK=$BATS_FILE_TMPDIR DOCKER_CONFIG=$BATS_FILE_TMPDIR/docker
	export OCI=${HUSK_CACHE:-/var/cache/husk}/images/oci
	"$IMAGES/make-images" "$OCI" busybox torture >/dev/null 2>&1
	"$HERE/odd-images" "$WORK/odd"
	local port
	for port in $(shuf -i 20000-30000 -n 20); do
		"$IMAGES/registry" start "$WORK/registry" "$port" 2>/dev/null && break
	done
	export PORT=$port REG=127.0.0.1:$port
	"$IMAGES/push-images" "$OCI" "$REG" busybox torture
	export BUSYBOX=$REG/library/busybox TORTURE=$REG/library/torture
	start_huskd one
}

teardown_file() {
	local pid
	for pid in "$WORK"/*.pid; do kill "$(cat "$pid")" || true; done
	"$IMAGES/registry" stop "$WORK/registry" "$PORT"
	[ ! -e "$WORK/private" ] || "$IMAGES/registry" stop "$WORK/private" "$((PORT + 1))"
}

start_huskd() { # start_huskd NAME [FLAG...]
	local name=$1 i
	shift
	"$BIN/huskd" --root "$WORK/$name" --state "$WORK/$name.state" --listen "unix://$WORK/$name.sock" \
		--backend qemu "$@" </dev/null >>"$WORK/$name.log" 2>&1 3>&- &
	echo $! >"$WORK/$name.pid"
	for ((i = 0; i < 100; i++)); do
		on "$name" version >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	cat "$WORK/$name.log"
	return 1
}

on() { timeout 60 "$BIN/husk" --endpoint "unix://$WORK/$1.sock" "${@:2}"; }
husk() { on one "$@"; }

setup() {
	husk prune -a --blobs -f >/dev/null
}

@test "images: a row a name, digests, ids, JSON, filters" {
	husk pull -q "$BUSYBOX" "$TORTURE"
	husk tag "$BUSYBOX" docker.io/library/mine:1
	run -0 husk images
	[[ ${lines[0]} == REPOSITORY*TAG*ID*CREATED*SIZE ]]
	[[ $output == *"$BUSYBOX "*latest* && $output == *"years ago"* ]]
	grep -q '^mine  *1 ' <<<"$output"
	[ "${#lines[@]}" = 4 ]
	id=$(husk images --json | jq -r ".[] | select(.repo_tags | index(\"$BUSYBOX:latest\")).id")
	[[ $id == sha256:* ]]
	[ "$(husk images -q mine:1)" = "${id:7:12}" ]
	[ "$(husk images -q --no-trunc mine:1)" = "$id" ]
	run -0 husk images --digests mine
	[ "${#lines[@]}" = 1 ] # mine:latest is another one
	run -0 husk images --digests "$BUSYBOX"
	[[ $output == *"$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$BUSYBOX")"* ]]
	run -0 husk images -f reference=min*
	[ "${#lines[@]}" = 2 ]
	run -0 husk images -f dangling=true
	[ "${#lines[@]}" = 1 ]
	run -2 husk images -f colour=blue
	run -2 husk images --no-such-option
}

@test "tag and rmi follow Docker: a name goes alone, the last one takes the image" {
	husk pull -q "$BUSYBOX"
	id=$(husk images -q --no-trunc)
	husk tag "$BUSYBOX" team/app:v1
	run -1 husk rmi "${id:7:12}"
	[[ $output == *"-f"* || $output == *force* ]]
	run -0 husk rmi team/app:v1
	[ "$output" = "Untagged: docker.io/team/app:v1" ]
	run -0 husk rmi --json "$BUSYBOX"
	[ "$(jq -r .deleted <<<"$output")" = "$id" ]
	[ -z "$(husk images -q)" ]
	run -1 husk rmi "$BUSYBOX"
	[[ $output == *"there is no image"*"husk images"* ]]
	run -0 husk rmi -f "$BUSYBOX"
	run -1 husk tag nothing:here other
	run -2 husk tag only-one
	husk pull -q "$BUSYBOX"
	run -1 husk tag "$BUSYBOX" 'NOT A NAME'
	run -1 husk tag "$BUSYBOX" "name@$id"
}

@test "inspect: Docker's keys, and what the registry's configuration says" {
	husk pull -q "$BUSYBOX"
	run -0 --separate-stderr husk inspect "$BUSYBOX"
	[ "$(jq length <<<"$output")" = 1 ]
	[ "$(jq -r '.[0].Config.Cmd[0]' <<<"$output")" = sh ]
	[ "$(jq -r '.[0].Id' <<<"$output")" = "$(husk images -q --no-trunc)" ]
	[ "$(jq -r '.[0].RootFS.Layers | length' <<<"$output")" = 1 ]
	e2fsck -fn "$(jq -r '.[0].Husk.Disks[0]' <<<"$output")"
	run -1 --separate-stderr husk inspect "$BUSYBOX" nothing-here
	[ "$(jq length <<<"$output")" = 1 ]
	[[ $stderr == *"no container and no image 'nothing-here'"* ]]
	run -1 husk inspect --type container "$BUSYBOX"
}

@test "pull: lines for people, JSON lines for programs, nothing with -q" {
	run -0 --separate-stderr husk pull "$BUSYBOX"
	[[ $output == sha256:* && $stderr == *"ready after"* && $stderr == *done* ]]
	husk rmi "$BUSYBOX"
	run -0 --separate-stderr husk pull --json "$BUSYBOX"
	[ -z "$stderr" ]
	[ "$(jq -rs '.[-1].event' <<<"$output")" = done ]
	[ "$(jq -rs '[.[] | select(.event == "progress")] | length > 0' <<<"$output")" = true ]
	run -0 --separate-stderr husk pull -q "$BUSYBOX"
	[ -z "$stderr" ]
	# On a terminal a bar for each layer.
	husk rmi "$BUSYBOX"
	run -0 script -qec "$BIN/husk --endpoint unix://$WORK/one.sock pull $BUSYBOX" /dev/null
	[[ $output == *'[####'* ]]
}

@test "df and prune: what is told to go goes" {
	husk pull -q "$BUSYBOX" "$TORTURE"
	run -0 husk df
	[[ ${lines[0]} == KIND*COUNT*"IN USE"*SIZE*RECLAIMABLE && $output == *Images* && $output == *Total* ]]
	images() { husk df --json | jq '.[] | select(.kind == "images").count'; }
	blobs() { husk df --json | jq '.[] | select(.kind == "blobs").bytes'; }
	[ "$(images)" = 2 ]
	[ "$(blobs)" -gt 0 ]
	run -2 husk prune
	[[ $output == *"-f"*"--dry-run"* ]]
	run -0 husk prune -n -a --blobs
	[[ $output == *"Would remove image"*Reclaimable* ]]
	[ "$(images)" = 2 ]
	run -0 husk prune -f
	[ "$(images)" = 2 ]
	# A tag that has moved on leaves its image without a name.
	husk tag "$BUSYBOX" x/y:1
	husk tag "$TORTURE" x/y:1
	husk rmi "$BUSYBOX"
	[ "$(images)" = 1 ]
	before=$(blobs)
	run -0 husk prune -f --blobs
	[[ $output == *Reclaimed* ]]
	[ "$(blobs)" -lt "$before" ]
	run -1 husk save -o "$BATS_TEST_TMPDIR/x.tar" x/y:1
	[[ $output == *"not kept"*"pull it again"* ]]
	[ ! -e "$BATS_TEST_TMPDIR/x.tar" ]
	[ "$(images)" = 1 ]
	run -0 husk prune -f -a --json
	[ "$(jq '.images | length' <<<"$output")" = 1 ]
	[ "$(images)" = 0 ]
}

@test "images verify finds what has changed, and a pull makes it well again" {
	husk pull -q "$BUSYBOX" "$TORTURE"
	run -0 husk images verify
	[[ $output == "All is well: "* ]]
	layer=$(husk inspect "$BUSYBOX" | jq -r '.[0].Husk.Disks[0]')
	chmod 600 "$layer"
	printf x | dd of="$layer" bs=1 seek=500000 conv=notrunc status=none
	run -0 husk images verify "$TORTURE"
	run -1 husk images verify "$BUSYBOX"
	[[ $output == *layer*"needed by $BUSYBOX:latest"*"husk pull"* ]]
	run -1 husk images verify --json
	[ "$(jq -rs '.[-1].problems' <<<"$output")" = 1 ]
	[ "$(husk images --json "$BUSYBOX" | jq '.[0].damaged')" = true ]
	husk pull -q "$BUSYBOX"
	run -0 husk images verify
	run -1 husk images verify no-such-image
	run -0 husk images verify --help
}

# What skopeo reads out of an archive: the digests of the layers' contents.
diff_ids() { # diff_ids IMAGE-FOR-SKOPEO
	skopeo inspect --config "$1" | jq -c .rootfs.diff_ids
}

@test "save: skopeo reads both forms, several images, and names as they were given" {
	cd "$BATS_TEST_TMPDIR"
	husk pull -q "$BUSYBOX" "$TORTURE"
	husk tag "$BUSYBOX" busybox:1
	run -0 husk save -o oci.tar busybox:1 "$TORTURE"
	[[ $output == "saved "*MB ]]
	[ "$(diff_ids oci-archive:oci.tar:1)" = "$(diff_ids "oci:$OCI/busybox:latest")" ]
	[ "$(diff_ids oci-archive:oci.tar:latest)" = "$(diff_ids "oci:$OCI/torture:latest")" ]
	mkdir o
	skopeo --insecure-policy copy -q oci-archive:oci.tar:latest oci:o:x
	run -0 --separate-stderr bash -c "'$BIN/husk' --endpoint 'unix://$WORK/one.sock' save --format docker-archive -q busybox:1 $BUSYBOX >docker.tar"
	[ -z "$stderr" ]
	[ "$(diff_ids docker-archive:docker.tar:busybox:1)" = "$(diff_ids "oci:$OCI/busybox:latest")" ]
	skopeo --insecure-policy copy -q "docker-archive:docker.tar:$BUSYBOX:latest" oci:o:y
	tar -tf docker.tar >/dev/null
	run -1 husk save -o none.tar nothing:here
	[ ! -e none.tar ] && [ ! -e none.tar.part ]
	run -1 husk save --format zip -o none.tar busybox:1
	run -2 husk save
	husk save busybox:1 | head -c 1000 >/dev/null || true
	husk images >/dev/null
}

@test "save: a blob that has changed on disk is an error, not an archive" {
	cd "$BATS_TEST_TMPDIR"
	husk pull -q "$BUSYBOX"
	blob=$(ls -S "$WORK"/one/images/blobs/sha256/* | head -n 1)
	chmod 600 "$blob"
	printf x | dd of="$blob" bs=1 seek=5000 conv=notrunc status=none
	run -1 husk save -o bad.tar "$BUSYBOX"
	[[ $output == *damaged*"husk images verify"* ]]
	[ ! -e bad.tar ]
}

@test "login keeps credentials for pulls, logout forgets them, wrong ones are refused" {
	skip "not served yet"
	python3 -c 'import crypt; print("me:" + crypt.crypt("s3cret", crypt.mksalt(crypt.METHOD_BLOWFISH)))' >"$WORK/htpasswd"
	HUSK_REGISTRY_AUTH=$WORK/htpasswd "$IMAGES/registry" start "$WORK/private" "$((PORT + 1))"
	private=127.0.0.1:$((PORT + 1))
	skopeo --insecure-policy copy -q --dest-tls-verify=false --dest-creds me:s3cret \
		"oci:$OCI/busybox:latest" "docker://$private/team/app:latest"
	run -1 husk pull -q "$private/team/app"
	[[ $output == *"husk login"* ]]
	run -1 husk login -u me --password-stdin "$private" <<<wrong
	[[ $output == *"does not take"* ]]
	run -2 husk login -u me -p s3cret "$private"
	run -2 husk login --password-stdin "$private" <<<s3cret
	run -0 husk login -u me --password-stdin "$private" <<<s3cret
	[ "$(stat -c %a "$DOCKER_CONFIG/config.json")" = 600 ]
	[ "$(jq -r ".auths[\"$private\"].auth" "$DOCKER_CONFIG/config.json" | base64 -d)" = me:s3cret ]
	run -0 husk pull -q "$private/team/app"
	run -0 husk logout "$private"
	run -1 husk logout "$private"
	husk rmi "$private/team/app"
	run -1 husk pull -q "$private/team/app"
	run ! grep -r s3cret "$WORK/one.log"
}
