# Images: what a registry can do to us, and what an image can hold.

bats_require_minimum_version 1.5.0
load helpers

@test "pull shows the layers and prints the id; images and rmi" {
	husk rmi "$BUSYBOX" || true
	run -0 --separate-stderr husk pull "$BUSYBOX"
	[[ $output == sha256:* ]]
	[[ $stderr == *"fetched in"* ]]
	run -0 husk images
	[[ $output == *"$BUSYBOX "*latest* ]]
	run -0 husk rmi "$BUSYBOX"
	run -1 husk rmi "$BUSYBOX"
	[[ $output == *"there is no image"* ]]
	husk pull "$BUSYBOX" 2>/dev/null
}

@test "an image that a container uses: rmi refuses, -f takes the names, the container goes on" {
	husk run -d --name user "$BUSYBOX" sleep 1000
	run -1 husk rmi "$BUSYBOX"
	[[ $output == *"rmi -f"* ]]
	run -0 husk inspect user
	[ "$(jq -r '.[0].State.Status' <<<"$output")" = running ]
	id=$(jq -r '.[0].Image' <<<"$output")
	[ "$(husk images --json "$id" | jq '.[0].containers')" = 1 ]
	run -0 husk prune -a -f
	[ -n "$(husk images -q "$id")" ]
	run -0 husk df
	[[ $output == *Containers*1*1* ]]
	run -0 husk rmi -f "$BUSYBOX"
	run -0 husk exec user ls /bin/sh
	husk rm -f user
	husk pull -q "$BUSYBOX"
	husk run --name ended "$BUSYBOX" true
	run -0 husk prune --containers -f
	[[ $output == *"Removed container ended"* ]]
	run -0 husk ps -aq
	[ -z "$output" ]
}

@test "the torture image is exact: whiteouts, opaque directory, links, devices, xattrs, sparse file" {
	run -0 husk run --rm "$TORTURE"
	[[ $output == *"torture: ok"* ]]
}

@test "unknown host, unknown image, no registry: clear errors, nothing left" {
	before=$(husk images)
	run -1 husk pull no-such-host.invalid/a/b
	[[ $output == *"RegistryUnavailable: pull no-such-host.invalid/a/b:latest: unknown host: no-such-host.invalid" ]]
	run -1 husk pull "$REGISTRY/no/such-image"
	[[ $output == *"pull $REGISTRY/no/such-image:latest: the registry has no such image (404)"* ]]
	run -1 husk pull "127.0.0.1:1/a/b"
	[[ $output == *"RegistryUnavailable: pull 127.0.0.1:1/a/b:latest: cannot connect to 127.0.0.1:1: Connection refused" ]]
	run -1 husk pull 'NOT A REFERENCE'
	[[ $output == *'bad image name "NOT A REFERENCE"'* ]]
	[ "$(husk images)" = "$before" ]
}

@test "a run of an image that cannot be pulled ends with 125" {
	run -125 husk run --rm "$REGISTRY/no/such-image" true
	[[ $output == *"the registry has no such image (404)"* ]]
}

@test "disk full while unpacking: a clear error, no half image, the space comes back" {
	img=$HUSK_STORE/small.img mnt=$HUSK_E2E/small
	truncate -s 40M "$img"
	mkfs.ext4 -q "$img"
	mkdir -p "$mnt"
	mount -o loop "$img" "$mnt"
	mkdir -p "$HUSK_E2E/full"
	"$HUSK_BIN/huskd" --root "$mnt/root" --state "$HUSK_E2E/full" --listen "unix://$HUSK_E2E/full/husk.sock" \
		--backend "$HUSK_BACKEND" </dev/null >"$HUSK_E2E/full/huskd.log" 2>&1 3>&- &
	echo $! >"$HUSK_E2E/full/huskd.pid"
	disown
	ok=0
	if wait_until 20 huskd_answers full; then
		before=$(df --output=avail "$mnt" | tail -n 1)
		run husk --endpoint "unix://$HUSK_E2E/full/husk.sock" pull "$DEBIAN"
		pulled=$status text=$output
		run husk --endpoint "unix://$HUSK_E2E/full/husk.sock" images -q
		after=$(df --output=avail "$mnt" | tail -n 1)
		echo "$text / images: $output / $before -> $after KiB"
		[ "$pulled" = 1 ] && [[ $text == *[Nn]"o space"* ]] && [ -z "$output" ] && [ $((before - after)) -lt 1024 ] && ok=1
	fi
	stop_huskd full
	umount "$mnt"
	rm -f "$img"
	[ "$ok" = 1 ]
}
