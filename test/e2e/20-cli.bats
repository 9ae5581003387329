# The husk command.

bats_require_minimum_version 1.5.0
load helpers

@test "run shows both streams, passes the exit code, and --rm leaves nothing" {
	run -0 --separate-stderr husk run --rm --name hello "$BUSYBOX" sh -c 'echo to out; echo to err >&2; hostname'
	[ "${lines[0]}" = "to out" ]
	[ "${lines[1]}" = hello ]
	[ "$stderr" = "to err" ]
	run -7 husk run --rm "$BUSYBOX" sh -c 'exit 7'
	run -0 husk ps -aq
	[ -z "$output" ]
	run -0 husk pods
	[ "${#lines[@]}" = 1 ]
}

@test "the container runs under its own kernel" {
	run -0 husk run --rm "$BUSYBOX" uname -r
	[ "$output" != "$(uname -r)" ]
	run -0 husk run --rm "$BUSYBOX" cat /proc/1/comm
	[ "$output" = cat ]
}

@test "run -e and the image's default command" {
	FROM_HOST=here run -0 --separate-stderr husk run --rm -e A=b=c -e FROM_HOST -e NOT_SET_ANYWHERE "$BUSYBOX" env
	[[ $output == *"A=b=c"* && $output == *"FROM_HOST=here"* && $output != *NOT_SET* ]]
	[[ $output == *"PATH="* && $output == *"HOSTNAME="* ]]
}

@test "a command that is not there: 127; one that cannot be executed: 126" {
	run -127 husk run --rm "$BUSYBOX" /no/such/thing
	[[ $output == *"/no/such/thing"* && $output == *"No such file or directory"* ]]
	run -126 husk run --rm "$BUSYBOX" /etc
	[[ $output == *"ermission denied"* ]]
	run -127 husk run --rm "$BUSYBOX" no-such-word
}

@test "killed by a signal: 128 + n" {
	run -143 husk run --rm "$BUSYBOX" sh -c 'sh -c "kill -TERM \$\$"; exit $?'
	husk run -d --name sig "$BUSYBOX" sleep 1000
	husk logs -f sig 3>&- &
	husk stop -t 0 sig
	wait $!
	run -0 husk rm sig
}

@test "debian runs, too" {
	run -0 husk run --rm "$DEBIAN" sh -c '. /etc/os-release; echo $VERSION_CODENAME; dpkg -l | wc -l'
	[ "${lines[-2]}" = bookworm ]
}

@test "detached: ps, logs -f, exec, stop, rm by name" {
	run -0 husk run -d --name web "$BUSYBOX" sh -c 'echo started; trap "echo bye; exit 0" TERM; while :; do sleep 0.2; done'
	run -0 husk ps
	[[ $output == *web*running* ]]
	run -0 husk exec web echo hi
	[ "$output" = hi ]
	run -5 husk exec web sh -c 'exit 5'
	run -127 husk exec web nothing-of-that-name
	run ! husk run --name web "$BUSYBOX" true
	[[ $output == *"named 'web' already"* ]]
	husk logs -f web >"$BATS_TEST_TMPDIR/followed" 3>&- &
	follower=$!
	run ! husk rm web
	[[ $output == *"husk rm -f"* ]]
	run -0 husk stop -t 5 web
	wait "$follower"
	[ "$(cat "$BATS_TEST_TMPDIR/followed")" = $'started\nbye' ]
	run -0 husk ps
	[[ $output != *web* ]]
	run -0 husk ps -a
	[[ $output == *web*exited* ]]
	run -0 husk rm web
	[ ! -e "$HUSK_LOG_DIR/web" ]
}

@test "much output arrives complete and in order" {
	n=${HUSK_E2E_LINES:-20000}
	run -0 --separate-stderr bash -c "'$HUSK_BIN/husk' run --rm '$BUSYBOX' sh -c 'i=0; while [ \$i -lt $n ]; do echo line \$i; i=\$((i+1)); done' | sha256sum"
	want=$(for ((i = 0; i < n; i++)); do echo "line $i"; done | sha256sum)
	[ "$output" = "$want" ]
	run -0 bash -c "'$HUSK_BIN/husk' run --rm '$BUSYBOX' sh -c 'head -c 3000000 /dev/zero | tr \"\\\\0\" x; echo; printf end' | tail -c 4"
	[ "$output" = $'\nend' ]
}

@test "Ctrl-C stops the container, and --rm still cleans up" {
	# A shell ignores SIGINT for what it starts in the background.
	env --default-signal=INT "$HUSK_BIN/husk" run --rm --name ctrlc "$BUSYBOX" \
		sh -c 'trap "exit 42" TERM; echo ready; while :; do sleep 0.1; done' \
		>"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err" 3>&- &
	pid=$!
	wait_until 30 grep -q ready "$BATS_TEST_TMPDIR/out"
	kill -INT "$pid"
	code=0
	wait "$pid" || code=$?
	[ "$code" = 42 ]
	grep -q 'husk: stopping ctrlc' "$BATS_TEST_TMPDIR/err"
	run -0 husk ps -aq
	[ -z "$output" ]
}

@test "-it says what is missing and exits 2" {
	run -2 husk run -it "$BUSYBOX" sh
	[[ $output == *"streaming server"* ]]
}

@test "check tells the backend and exits 0" {
	run -0 husk check
	[[ $output == *"kvm"* && $output == *"guest kernel"* && $output == *"RuntimeReady"* ]]
}

@test "check tells where the process that downloads is confined by less" {
	local d=$BATS_TEST_TMPDIR/bin
	mkdir "$d"
	cp "$HUSK_BIN/husk" "$d/husk"
	printf '#!/bin/sh\necho "{\\"landlock\\": 0}"\n' >"$d/husk-image-worker"
	chmod +x "$d/husk-image-worker"
	run "$d/husk" check
	[[ $output == *"note  confinement "*"no Landlock"*"lsm="* ]]
	printf '#!/bin/sh\necho "{\\"landlock\\": 4}"\n' >"$d/husk-image-worker"
	run "$d/husk" check
	[[ $output == *"ok    confinement "*"version 4"* ]]
}

# `auto` without KVM is not what a cluster wants to find out late.
@test "a fallback to QEMU is told in the log, in Status and by check" {
	run -0 --separate-stderr crictl info
	in_use=$(jq -r .config.backendInUse <<<"$output")
	case $HUSK_BACKEND-$in_use in
	auto-qemu)
		jq -e '.status.conditions[] | select(.type == "RuntimeReady") | .status and .reason == "BackendFallback" and
			(.message | contains("QEMU without KVM"))' <<<"$output"
		grep -F 'warn huskd: backend auto falls back' "$HUSK_E2E/main/huskd.log"
		run -0 husk check
		[[ $output == *"note  RuntimeReady"*"no border against a hostile guest"* ]]
		;;
	*)
		jq -e '.status.conditions[] | select(.type == "RuntimeReady") | .status and .reason == ""' <<<"$output"
		run -1 grep -F 'falls back' "$HUSK_E2E/main/huskd.log"
		;;
	esac
}

@test "run hides and protects what other runtimes do" {
	run ! husk run --rm "$BUSYBOX" sh -c 'echo x >/proc/sys/kernel/core_pattern'
	run ! husk run --rm "$BUSYBOX" sh -c 'echo h >/proc/sysrq-trigger'
	run -0 husk run --rm "$BUSYBOX" sh -c 'cat /proc/kcore /proc/timer_list /proc/interrupts 2>/dev/null | wc -c; ls /sys/firmware | wc -l'
	[ "$output" = "$(printf '0\n0')" ]
}

@test "help is there for every command; nonsense is refused" {
	run -0 husk --help
	for c in run exec logs ps pods stop rm pull push images inspect tag rmi save load login logout df prune check version; do
		[[ $output == *"$c"* ]]
		run -0 husk $c --help
		[[ $output == *"Usage: husk $c"* ]]
		run -0 husk --help
	done
	run -2 husk no-such-command
	run -2 husk run
	run -125 husk --endpoint unix:///no/such.sock run "$BUSYBOX"
	[[ $output == *"Is huskd running?"* ]]
	run -125 husk run --rm --name 'a/b' "$BUSYBOX"
}
