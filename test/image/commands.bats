#!/usr/bin/env bats
# The commands for images against a real huskd and real registries; no VM. Needs root and the packages
# of hack/install-deps. HUSK_BUILD is the build directory (default: build).

bats_require_minimum_version 1.5.0

load common

setup_file() {
	image_env
	export DOCKER_CONFIG=$WORK/docker
	export OCI=${HUSK_CACHE:-/var/cache/husk}/images/oci
	"$IMAGES/make-images" "$OCI" busybox torture >/dev/null 2>&1
	"$HERE/odd-images" "$WORK/odd"
	start_registry "$OCI" busybox torture
	PRIVATE_PORT=$(free_port)
	export PRIVATE_PORT
	export BUSYBOX=$REG/library/busybox TORTURE=$REG/library/torture
	start_huskd one
}

teardown_file() {
	local pid
	for pid in "$WORK"/*.pid; do kill "$(cat "$pid")" || true; done
	stop_registry
	[ ! -e "$WORK/private" ] || "$IMAGES/registry" stop "$WORK/private" "$PRIVATE_PORT"
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
	run -0 --separate-stderr husk save --json -o j.tar busybox:1
	[ "$(jq -rs '.[-1] | .done == .size' <<<"$output")" = true ]
	run -2 husk save --json busybox:1
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
	# blobs are synced after the pull
	for ((i = 0; i < 100; i++)); do
		[ -n "$(ls "$WORK/one/images/ingest/sha256")" ] || break
		sleep 0.05
	done
	blob=$(ls -S "$WORK"/one/images/blobs/sha256/* | head -n 1)
	chmod 600 "$blob"
	printf x | dd of="$blob" bs=1 seek=5000 conv=notrunc status=none
	run -1 husk save -o bad.tar "$BUSYBOX"
	[[ $output == *damaged*"husk images verify"* ]]
	[ ! -e bad.tar ]
}

# Every file of an image, as a container would see it: for images of one layer.
content() { # content HUSKD IMAGE
	local disk m=$BATS_TEST_TMPDIR/m
	disk=$(on "$1" inspect "$2" | jq -r '.[0].Husk.Disks[0]')
	mkdir -p "$m"
	mount -o ro,loop "$disk" "$m"
	(cd "$m" && find . -not -path './lost+found*' -exec stat -c '%n %f %u %g %Y %s' {} + | sort | sha256sum)
	umount "$m"
}

@test "save and load between two huskd: the same image, the same files" {
	cd "$BATS_TEST_TMPDIR"
	husk pull -q "$BUSYBOX" "$TORTURE"
	start_huskd two
	run -0 bash -c "'$BIN/husk' --endpoint unix://$WORK/one.sock save -q $BUSYBOX $TORTURE |
		'$BIN/husk' --endpoint unix://$WORK/two.sock load -q"
	[ "${lines[0]}" = "Loaded image: $BUSYBOX:latest" ]
	[ "${lines[1]}" = "Loaded image: $TORTURE:latest" ]
	[ "$(on two images -q --no-trunc | sort)" = "$(husk images -q --no-trunc | sort)" ]
	[ "$(content one "$BUSYBOX")" = "$(content two "$BUSYBOX")" ]
	# What was loaded can be saved again, and is the same archive.
	husk save -q "$TORTURE" >first.tar
	on two save -q "$TORTURE" >second.tar
	cmp first.tar second.tar
	run -0 on two images verify
	kill "$(cat "$WORK/two.pid")"
	rm "$WORK/two.pid"
}

@test "load takes what skopeo and umoci make, compressed or not" {
	cd "$BATS_TEST_TMPDIR"
	id=$(jq -r .config.digest "$OCI/busybox/blobs/sha256/$(jq -r '.manifests[0].digest' "$OCI/busybox/index.json" | cut -d: -f2)")
	want=$(skopeo inspect --config "oci:$OCI/busybox:latest" | jq -c '[.rootfs.diff_ids, .config]')
	skopeo --insecure-policy copy -q "oci:$OCI/busybox:latest" docker-archive:d.tar:team/app:v1
	tar -tf d.tar | grep -q '\.tar$' # plain layers
	run -0 husk load -q -i d.tar
	[ "$output" = "Loaded image: team/app:v1" ]
	[ "$(husk inspect team/app:v1 | jq -c '[.[0].RootFS.Layers, .[0].Config]')" = "$want" ]
	skopeo --insecure-policy copy -q "oci:$OCI/torture:latest" docker-archive:t.tar:team/torture:v2
	run -0 husk load -q -i t.tar
	skopeo --insecure-policy copy -q "oci:$OCI/busybox:latest" oci-archive:o.tar:v3
	run -0 husk load -q -i o.tar
	[ "$output" = "Loaded image: $id" ] # a tag alone is no name
	run -0 husk load -q -n other/app -i o.tar
	[ "$output" = "Loaded image: other/app:latest" ]
	[ "$(husk images -q --no-trunc other/app)" = "$id" ]
	skopeo --insecure-policy copy -q "oci:$OCI/busybox:latest" oci-archive:f.tar:reg.example/team/full:v4
	run -0 husk load -q -i f.tar
	[ "$output" = "Loaded image: reg.example/team/full:v4" ]
	tar -C "$OCI/busybox" -cf u.tar .
	gzip -k u.tar
	zstd -q u.tar
	xz -k u.tar
	for f in u.tar u.tar.gz u.tar.zst; do
		husk rmi -f "$id" >/dev/null
		run -0 husk load -q -n umoci:1 -i $f
		[ "$output" = "Loaded image: umoci:1" ]
	done
	run -1 husk load -i u.tar.xz
	[[ $output == *"compressed by xz"* ]]
	run -0 husk images verify
}

@test "an image of 40 layers, of which disks are merged, is loaded, saved and pushed with all of them" {
	cd "$BATS_TEST_TMPDIR"
	"$HERE/layered-images" oci
	tar -C oci/layers40 -cf in.tar .
	run -0 husk load -q -n many:1 -i in.tar
	[ "$(husk inspect many:1 | jq '.[0].RootFS.Layers | length')" = 40 ]
	[ "$(husk inspect many:1 | jq '.[0].Husk.Disks | length')" = 16 ]
	want=$(diff_ids oci:oci/layers40:latest)
	husk save -q -o out.tar many:1
	[ "$(diff_ids oci-archive:out.tar:1)" = "$want" ]
	husk tag many:1 "$REG/team/many:1"
	run -0 husk push -q "$REG/team/many:1"
	[ "$(skopeo inspect --config --tls-verify=false "docker://$REG/team/many:1" | jq -c .rootfs.diff_ids)" = "$want" ]
	id=$(husk images -q --no-trunc many:1)
	husk rmi -f "$id"
	skopeo --insecure-policy copy -q oci:oci/layers40:latest docker-archive:plain.tar:many:2
	run -0 husk load -q -i plain.tar
	[ "$(husk inspect many:2 | jq '.[0].Husk.Disks | length')" = 16 ]
	run -0 husk images verify
}

# Packs a layout after something was done to it.
bad_layout() { # bad_layout COMMAND...: in a copy of busybox's layout
	rm -rf bad
	cp -r "$OCI/busybox" bad
	(cd bad && "$@")
	tar -C bad -cf bad.tar .
}
manifest() { echo "blobs/sha256/$(jq -r '.manifests[0].digest' index.json | cut -d: -f2)"; }
layer() { echo "blobs/sha256/$(jq -r '.layers[0].digest' "$(manifest)" | cut -d: -f2)"; }
change_layer() { printf x | dd of="$(layer)" bs=1 seek=100 conv=notrunc status=none; }
change_manifest() { echo >>"$(manifest)"; }
drop_layer() { rm "$(layer)"; }
cut_layer() { truncate -s -1 "$(layer)"; }
no_index() { rm index.json; }
bad_name() { jq '.manifests[0].annotations["io.containerd.image.name"] = "../../etc/passwd"' index.json >i && mv i index.json; }
bad_digest() { jq '.manifests[0].digest = "sha256:../../../../etc/passwd"' index.json >i && mv i index.json; }
big_index() { head -c 5M /dev/zero >index.json; }

@test "load: an archive that lies is an error, and nothing of it stays" {
	cd "$BATS_TEST_TMPDIR"
	refused() { # refused PART-OF-TEXT COMMAND...
		local part=$1
		shift
		bad_layout "$@"
		run -1 husk load -q -i bad.tar
		echo "$*: $output"
		[[ $output == *"$part"* ]]
		[ -z "$(husk images -q)" ]
	}
	refused "digest" change_layer
	refused "wrong digest" change_manifest
	refused "not in the archive" drop_layer
	refused "bytes in the archive" cut_layer
	refused "no archive of images" no_index
	refused "a name in the archive" bad_name
	refused "without a digest" bad_digest
	refused "more than 4 MiB" big_index
	# A link out of the archive leads nowhere.
	link_layer() { l=$(layer) && ln -sf /etc/passwd "$l"; }
	refused "not in the archive" link_layer
	# docker's form: what is named is not there, or the layer is not what the configuration says.
	skopeo --insecure-policy copy -q "oci:$OCI/busybox:latest" docker-archive:d.tar:a/b:c
	mkdir d && tar -C d -xf d.tar
	jq '.[0].Layers[0] = "../../etc/passwd"' d/manifest.json >m && cp m d/manifest.json
	tar -C d -cf bad.tar .
	run -1 husk load -q -i bad.tar
	[[ $output == *"not in the archive"* ]]
	tar -C d -xf d.tar
	f=$(jq -r '.[0].Layers[0]' d/manifest.json)
	chmod 600 "d/$f"
	printf x | dd of="d/$f" bs=1 seek=600 conv=notrunc status=none
	tar -C d -cf bad.tar .
	run -1 husk load -q -i bad.tar
	[[ $output == *digest* ]]
	run -1 husk load -q </dev/null
	[[ $output == *"no tar archive"* ]]
	head -c 100000 d.tar >cut.tar
	run -1 husk load -q -i cut.tar
	[[ $output == *"cut off"* ]]
	run -2 husk load -i d.tar extra
	# A client that goes away in the middle leaves nothing.
	(head -c 300000 d.tar; sleep 2) | timeout 1 "$BIN/husk" --endpoint "unix://$WORK/one.sock" load -q || true
	[ -z "$(husk images -q)" ]
	[ -z "$(ls "$WORK/one/images/tmp")" ]
	# A bomb: 64 times its size, and 256 MiB, is the end.
	truncate -s 1G zero
	zstd -q zero
	run -1 husk load -q -i zero.zst
	[[ $output == *"more than 64 times"* ]]
	husk pull -q "$BUSYBOX"
	run -0 husk images verify
}

@test "login keeps credentials for pulls, logout forgets them, wrong ones are refused" {
	python3 -c 'import crypt; print("me:" + crypt.crypt("s3cret", crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)))' >"$WORK/htpasswd"
	HUSK_REGISTRY_AUTH=$WORK/htpasswd "$IMAGES/registry" start "$WORK/private" "$PRIVATE_PORT"
	private=127.0.0.1:$PRIVATE_PORT
	skopeo --insecure-policy copy -q --dest-tls-verify=false --dest-creds me:s3cret \
		"oci:$OCI/busybox:latest" "docker://$private/team/app:latest"
	run -1 husk pull -q "$private/team/app"
	[[ $output == *"husk login"* ]]
	run -1 husk login -u me --password-stdin "$private" <<<wrong
	[[ $output == *"does not take"* ]]
	run -2 husk login -u me -p s3cret "$private"
	run -2 husk login --password-stdin "$private" <<<s3cret
	run -1 husk login -u me "$private" <<<s3cret
	[[ $output == *"--password-stdin"* ]]
	run -0 husk login -u me --password-stdin "$private" <<<s3cret
	[ "$(stat -c %a "$DOCKER_CONFIG/config.json")" = 600 ]
	[ "$(jq -r ".auths[\"$private\"].auth" "$DOCKER_CONFIG/config.json" | base64 -d)" = me:s3cret ]
	run -0 husk pull -q "$private/team/app"
	# The same credentials push.
	husk tag "$private/team/app" "$private/other/app:2"
	run -0 husk push -q "$private/other/app:2"
	skopeo inspect --tls-verify=false --creds me:s3cret "docker://$private/other/app:2" >/dev/null
	run -0 husk logout "$private"
	run -1 husk push "$private/other/app:2"
	[[ $output == *"husk login"* ]]
	run -1 husk logout "$private"
	husk rmi "$private/team/app" "$private/other/app:2"
	run -1 husk pull -q "$private/team/app"
	run ! grep -r s3cret "$WORK/one.log"
}

@test "login asks on a terminal, without echo" {
	private=127.0.0.1:$PRIVATE_PORT
	(sleep 0.5; echo me; sleep 0.5; echo s3cret; sleep 2) | script -qec "$BIN/husk --endpoint unix://$WORK/one.sock login $private" /dev/null >"$BATS_TEST_TMPDIR/out"
	cat "$BATS_TEST_TMPDIR/out"
	grep -q "Logged in to $private" "$BATS_TEST_TMPDIR/out"
	[ "$(grep -c s3cret "$BATS_TEST_TMPDIR/out")" = 0 ]
	husk logout "$private"
}

@test "push: only what is not there, mounted from where it is, and pulled again it is the same" {
	husk pull -q "$BUSYBOX" "$TORTURE"
	husk tag "$TORTURE" "$REG/new/torture:v1"
	run -0 --separate-stderr husk push "$REG/new/torture:v1"
	[ "$output" = "$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$REG/new/torture:v1")" ]
	[[ $stderr == *mounted* ]]
	run -0 --separate-stderr husk push --json "$REG/new/torture:v1"
	[ "$(jq -rs '[.[] | select(.event == "progress").items[].state] | map(select(. == "already there")) | length > 0' <<<"$output")" = true ]
	husk images --json "$REG/new/torture:v1" | jq -e '.[0].repo_digests | map(select(contains("/new/"))) | length == 1'
	id=$(husk images -q --no-trunc "$TORTURE")
	husk rmi -f "$id"
	run -0 husk pull -q "$REG/new/torture:v1"
	[ "$output" = "$id" ]
	run -1 husk push "$REG/not/here"
	[[ $output == *"husk tag"* ]]
	run -1 husk push "$REG/new/torture@$(husk inspect "$id" | jq -r '.[0].RepoDigests[0]' | cut -d@ -f2)"
	run -2 husk push
}

@test "push: an image whose blobs are gone, to a registry that has them or has not" {
	husk pull -q "$BUSYBOX"
	husk prune -f --blobs
	husk tag "$BUSYBOX" "$REG/mounted/app"
	run -0 husk push -q "$REG/mounted/app"
	start_mock
	husk tag "$BUSYBOX" "$MOCK/ok/app"
	run -1 husk push -q "$MOCK/ok/app"
	[[ $output == *"not kept"*"pull"* ]]
}

start_mock() {
	[ -z "$MOCK" ] || return 0
	local port
	port=$(free_port)
	export MOCK=127.0.0.1:$port
	"$HERE/mock-upload" "$port" >"$BATS_TEST_TMPDIR/mock.log" 2>&1 3>&- &
	echo $! >"$WORK/mock-$BATS_TEST_NUMBER.pid"
	answers "http://$MOCK/v2/"
}
stop_mock() {
	kill "$(cat "$WORK/mock-$BATS_TEST_NUMBER.pid")"
	rm "$WORK/mock-$BATS_TEST_NUMBER.pid"
}
teardown() { [ ! -e "$WORK/mock-$BATS_TEST_NUMBER.pid" ] || stop_mock; }

@test "push: a broken upload goes on where it stopped, or from the start; no retry of a no" {
	husk pull -q "$BUSYBOX"
	start_mock
	log=$BATS_TEST_TMPDIR/mock.log
	for mode in ok cut lost late; do
		husk tag "$BUSYBOX" "$MOCK/$mode/app:1"
		: >"$log"
		run -0 husk push -q "$MOCK/$mode/app:1"
		cat "$log"
		[[ $output == sha256:* ]]
		case $mode in
		cut) # three breaks, and no byte twice
			size=$(jq .layers[0].size "$OCI/busybox/blobs/sha256/$(jq -r '.manifests[0].digest' "$OCI/busybox/index.json" | cut -d: -f2)")
			[ "$(awk '/^PATCH/ && $4 > 1000 { n += $4 } END { print n }' "$log")" = "$size" ]
			[ "$(grep -c '^PATCH.* [3-9]00000-' "$log")" = 3 ]
			;;
		lost) [ "$(grep -c '^POST' "$log")" -ge 3 ] ;;
		esac
	done
	husk tag "$BUSYBOX" "$MOCK/deny/app:1"
	: >"$log"
	run -1 husk push -q "$MOCK/deny/app:1"
	[ "$(grep -c '^POST' "$log")" -le 4 ] # of two blobs: with a mount, without
	husk tag "$BUSYBOX" "$MOCK/other/app:1"
	run -1 husk push -q "$MOCK/other/app:1"
	[[ $output == *"took the manifest for"* ]]
}
