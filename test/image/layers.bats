#!/usr/bin/env bats
# Layers: what many of them become, and what a tar may and may not say. Needs root and the packages of
# hack/install-deps. HUSK_BUILD is the build directory (default: build).

load common

setup_file() {
	image_env
	"$HERE/layered-images" "$WORK/oci"
	"$HERE/implied-images" "$WORK/oci"
	"$HERE/odd-layers" "$WORK/odd"
	local port
	port=$(free_port)
	export MOCK=127.0.0.1:$port
	mock "$WORK/oci" "$WORK/mock" "$port"
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

# unpack NAME [ARG]...: $DISK from the blob $WORK/odd/NAME; says what the worker has reported
unpack() {
	local blob=$WORK/odd/$1 kind=gzip
	shift
	case $blob in
	*.tar) kind=none ;;
	*.zst) kind=zstd ;;
	esac
	rm -f "$DISK"
	"$IMAGE_TOOL_WORKER" unpack --layers $kind --id "sha256:$(printf '0%.0s' {1..64})" "$@" 3<>"$DISK" <"$blob" |
		"$TOOL" report 2>&1
}

# accepted NAME: mounted at $M
accepted() {
	run unpack "$1"
	echo "$1: $output"
	[[ $output == 'ok '*' sha256:'* ]]
	e2fsck -fn "$DISK" >"$DISK.log" 2>&1 || { cat "$DISK.log"; false; }
	mount -o ro,loop "$DISK" "$M"
}

# refused NAME ERRNO TEXT
refused() {
	run unpack "$1"
	echo "$1: $output"
	[[ $output == "error -$2 "*"$3"* ]]
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
	config=$(jq -r .config.digest "$WORK/oci/layers40/blobs/sha256/$(
		jq -r '.manifests[0].digest' "$WORK/oci/layers40/index.json" | cut -d: -f2)")
	[ -n "$config" ]
	[ -z "$(grep "blobs/sha256:" "$WORK/mock.log" | grep -v "$config")" ]
}

@test "several pulls of one image of many layers at once" {
	run tool pull-many "$MOCK/ok/layers40" "$MOCK/ok/layers40:latest" "$MOCK/redirect/layers40"
	echo "$output"
	[ "$status" -eq 0 ]
	[ "$(grep -c total_ms <<<"$output")" = 3 ]
	[ "$(ls "$STORE/layers/sha256" | wc -l)" = 16 ]
}

# is PATH MODE UID [XATTR]: of a directory at $M
is() {
	run stat -c '%a %u %g %F' "$M/$1"
	echo "$1: $output"
	[ "$output" = "$2 $3 $3 directory" ]
	[ "$(getfattr --absolute-names --only-values -n user.k "$M/$1" 2>/dev/null)" = "${4-}" ]
}

disks() { tool layers "$(tool get "$1" | cut -d' ' -f1)"; }

@test "a directory that a layer does not name has the attributes of the layer below, in each image its own" {
	tool pull "$MOCK/ok/parents"
	tool pull "$MOCK/ok/other"
	# the upper layer is shared; only the attributes are not
	[ "$(disks "$MOCK/ok/parents" | sed -n 2p)" = "$(disks "$MOCK/ok/other" | sed -n 2p)" ]
	mount_image "$MOCK/ok/parents"
	is tmp 1777 0
	is srv 644 0
	is srv/app 700 1000 base
	[ "$(stat -c %Y "$M/srv/app" "$M/tmp" | sort -u)" = 1400000000 ]
	[ -e "$M/tmp/a" ] && [ -e "$M/srv/app/b" ] && [ -e "$M/srv/app/old" ]
	teardown
	mount_image "$MOCK/ok/other"
	is tmp 700 2
	is srv 711 0
	is srv/app 1770 77
	teardown
	# the disk on top is verified, goes with its image, and comes again with the same bytes
	tool verify
	cp -r "$STORE/layers" "$BATS_TEST_TMPDIR/first"
	tool rm "$MOCK/ok/other"
	[ "$(ls "$STORE/layers/sha256" | wc -l)" = 3 ]
	tool pull "$MOCK/ok/other"
	diff -r "$BATS_TEST_TMPDIR/first" "$STORE/layers"
}

# What both of these show of `deep`.
check_deep() {
	is tmp 1777 0
	is gone 755 0            # a whiteout in between: nothing is left to have from below
	is empty 750 8 kept      # an opaque mark empties it, and no more
	[ ! -e "$M/empty/old" ] && [ -e "$M/empty/new" ] && [ -e "$M/empty/more" ]
	is emptied 711 9
	is emptied/in 755 0      # what was in it is gone
	is bin 755 0             # the link is replaced, as by a runtime with a directory for each layer
	[ -e "$M/bin/tool" ] && [ ! -e "$M/usr/bin/tool" ]
	is usr/bin 751 3
	is file 755 0
	is late 705 44           # named after its files
	is three 710 5
	is three/a 711 6
	is three/a/b 755 0
	is three/new 500 21
	is was-dir 755 0
	is named 770 13
	is srv/app 700 1000 base
	is both 755 0
	is fresh 755 0
}

@test "directories that are not named: opaque marks, whiteouts, links, three layers; merged disks agree" {
	local name
	for name in deep merged merged2 merged3; do
		tool pull "$MOCK/ok/$name"
		mount_image "$MOCK/ok/$name"
		check_deep
		(cd "$M" && find . -mindepth 1 -not -path './pad*' -printf '%p %y %m %U %G %s %T@ %l\n' | sort
			find . -mindepth 1 -not -path './pad*' \( -type f -o -type d \) | sort | xargs getfattr -h -d -m '^user' 2>/dev/null) \
			>"$BATS_TEST_TMPDIR/$name"
		teardown
		diff "$BATS_TEST_TMPDIR/deep" "$BATS_TEST_TMPDIR/$name"
	done
}

@test "an image that names its parents has no disk more than layers; the root is a directory, too" {
	tool pull "$MOCK/ok/named"
	[ "$(disks "$MOCK/ok/named" | wc -l)" = 2 ]
	tool pull "$MOCK/ok/fresh"
	[ "$(disks "$MOCK/ok/fresh" | wc -l)" = 2 ]
	tool pull "$MOCK/ok/root"
	mount_image "$MOCK/ok/root"
	is . 751 99
}

@test "disks of a version that did not know what they leave unnamed are made anew by the next pull" {
	tool pull "$MOCK/ok/parents"
	sqlite3 "$STORE/images.db" "DELETE FROM image_layers WHERE pos=2;
		DELETE FROM layers WHERE diff_id NOT IN (SELECT diff_id FROM image_layers);
		ALTER TABLE layers DROP COLUMN implied; ALTER TABLE layers DROP COLUMN root;
		PRAGMA user_version=3"
	[ "$(disks "$MOCK/ok/parents" | wc -l)" = 2 ]
	mount_image "$MOCK/ok/parents"
	teardown
	: >"$WORK/mock.log"
	tool pull "$MOCK/ok/parents"
	# out of the blobs that are kept
	id=$(tool get "$MOCK/ok/parents" | cut -c8-71)
	[ -n "$id" ]
	[ -z "$(grep "/blobs/" "$WORK/mock.log" | grep -v "$id")" ]
	mount_image "$MOCK/ok/parents"
	is srv/app 700 1000 base
}

@test "tars of all kinds" {
	local n
	for n in ustar gnu pax; do
		accepted $n.gz
		[ "$(cat "$M/plain")" = plain ]
		[ "$(stat -c '%u %g %Y %h %i' "$M/plain")" = "$(stat -c '1000 100000 1600000000 2 %i' "$M/hard")" ]
		[ "$(cat "$M"/d00/d01/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/file)" = deep ]
		[ "$(stat -c '%t:%T %F' "$M/dev")" = "5:12c character special file" ]
		[ -p "$M/fifo" ]
		umount "$M"
	done
	for n in gnulong paxlong; do
		accepted $n.gz
		[ "$(cat "$M/$(printf 'n%.0s' {1..200})")" = x ]
		[ "$(readlink "$M/l")" = "$(printf 't%.0s' {1..300})" ]
		umount "$M"
	done
	accepted utf8.gz
	[ "$(cat "$M/ä/ö")" = x ]
	umount "$M"
	accepted notutf8.gz
	[ "$(cat "$M/"$'\xe4')" = x ]
	umount "$M"
	accepted bigid.gz
	[ "$(stat -c '%u %g' "$M/f")" = "4000000000 3000000" ]
	umount "$M"
	accepted future.gz
	[ "$(stat -c %Y "$M/f" "$M/g" | tr '\n' ' ')" = "8589934592 -5 " ]
	[[ $(stat -c %y "$M/h") == *:01.500000000* ]]
	umount "$M"
	for n in plain.tar members.gz zeros-behind.gz trailing-zeros.gz trailing-data.gz no-end.gz window8.zst window25.zst; do
		accepted $n
		[ -s "$M/f" ]
		umount "$M"
	done
	accepted empty-tar.gz
}

@test "sparse files: GNU, pax 0.0, 0.1, 1.0" {
	local n sums=
	for n in gnu 0.0 0.1 1.0; do
		accepted sparse-$n.gz
		[ "$(stat -c '%s %b' "$M/s")" = "5368709120 16" ]
		[ "$(stat -c '%s %b' "$M/h")" = "1048576 0" ]
		sums+="$(tail -c +1000001 "$M/s" | head -c 1; tail -c +4000000001 "$M/s" | head -c 4 | tr -d '\0') "
		umount "$M"
	done
	[ "$sums" = "xend xend xend xend " ]
}

@test "extended attributes, ACLs, capabilities" {
	accepted acl.gz
	[[ $output == *' dropped_xattrs=2 '* ]]
	[ "$(getfattr -d -m - -e hex "$M/f" 2>/dev/null | grep -c =)" = 3 ]
	[ "$(getfattr --only-values -n user.note "$M/f" 2>/dev/null)" = hi ]
	[[ $(getfattr -n system.posix_acl_access -e hex "$M/f" 2>/dev/null) == *=0x0200000001000700ffffffff02000500e803000004000500ffffffff10000700ffffffff20000100ffffffff* ]]
	[[ $(getfattr -n security.capability -e hex "$M/f" 2>/dev/null) == *=0x010000020004000000000000000000000000000* ]]
	umount "$M"
	accepted base64.gz
	[ "$(getfattr --only-values -n user.note "$M/f" 2>/dev/null)" = hi ]
	umount "$M"
	refused bad-acl.gz 71 "POSIX ACL"
}

@test "names that other runtimes take, too" {
	accepted absolute.gz
	[ "$(cat "$M/etc/passwd" "$M/usr/x" "$M/hard")" = xyx ]
	umount "$M"
	accepted usrmerge.gz
	[ "$(cat "$M/usr/lib/x" "$M/usr/lib/y")" = xy ]
	[ "$(readlink "$M/lib")" = usr/lib ]
	umount "$M"
	accepted opaque-root.gz
	[ -e "$M/f" ]
	umount "$M"
	accepted duplicates.gz
	[ "$(cat "$M/f" "$M/l")" = secondfile ]
	[ -e "$M/d/x" ]
	umount "$M"
	accepted implied.gz
	[ "$(stat -c '%a %u %g' "$M/a/b")" = "755 0 0" ]
}

@test "names that want out" {
	refused dotdot.gz 71 'name with ".."'
	refused dotdot-link.gz 71 'name with ".."'
	refused symlink-out.gz 71 "passes through the symbolic link l"
	refused symlink-abs.gz 71 "passes through the symbolic link l"
	refused symlink-loop.gz 71 "passes through the symbolic link a"
	refused hard-symlink.gz 71 'name with ".."'
	refused hard-missing.gz 71 "not in this layer"
	refused hard-dir.gz 71 "not a file"
	refused through-file.gz 71 "which is not a directory"
}

@test "too much of something" {
	refused name64k.gz 71 "name of more than 4095 bytes"
	refused name64k-gnu.gz 71 "name of more than 4095 bytes"
	refused path64k.gz 71 "name of more than 4095 bytes"
	refused deep.gz 71 "512 directories deep"
	refused xattr1m.gz 71 "attribute"
	refused xattr2m.gz 74 "too large"
	refused device-number.gz 71 "device number"
	refused entries10m.gz 27 "more than 2000000 entries"
	refused window.zst 27 "window of more than 32 MiB"
}

@test "sizes that cannot be" {
	refused negative.gz 74 "negative size"
	refused negative-pax.gz 74 "negative"
	refused huge.gz 74 "overflow"
	refused huge-pax.gz 74 "overflow"
	refused huge-sparse.gz 74 "damaged tar"
}

@test "damaged blobs" {
	refused cut.gz 74 "Truncated"
	refused cut.gz.gz 74 "truncated"
	refused crc.gz 74 "wrong checksum"
	refused garbage.gz 74 "data past its end"
	refused empty.gz 74 "truncated"
	refused notar.gz 74 "not a tar"
	refused checksum.gz 74 "not a tar"
}

@test "a bomb of 10 GB: stopped at its limit, and nothing on disk" {
	local n
	for n in bomb.gz bomb.zst; do
		refused $n 27 "more than 250 times its size"
		[ "$(du -k "$DISK" | cut -f1)" -lt 16 ]
	done
}

@test "both processes are confined: user, capabilities, filter, limits, network" {
	local pid p n=0
	mkfifo "$BATS_TEST_TMPDIR/in"
	exec 9<>"$BATS_TEST_TMPDIR/in"
	"$IMAGE_TOOL_WORKER" unpack --layers none --id "sha256:$(printf '0%.0s' {1..64})" 3<>"$DISK" <&9 >/dev/null 2>&1 9>&- &
	pid=$!
	sleep 0.3
	for p in $pid $(pgrep -P $pid); do
		grep -q '^Seccomp:.2$' "/proc/$p/status"
		grep -q '^NoNewPrivs:.1$' "/proc/$p/status"
		grep -q '^CapEff:.0000000000000000$' "/proc/$p/status"
		[ "$(id -u)" != 0 ] || grep -q '^Uid:.65534.65534.65534.65534$' "/proc/$p/status"
		awk '/^Max data size/ { if ($4 > 48 * 1048576) exit 1 } /^Max cpu time/ { if ($4 > 900) exit 1 }
			/^Max core file size/ { if ($5 != 0) exit 1 }' "/proc/$p/limits"
		[[ "$(ls -l "/proc/$p/fd")" != *socket:* ]]
		n=$((n + 1))
	done
	exec 9>&-
	kill -9 $pid
	wait $pid || true
	[ $n = 2 ]
}
