# Commands in containers with a client: exec over both transports, what goes wrong, and what is left.

bats_require_minimum_version 1.5.0
load helpers

setup() {
	T=$BATS_TEST_TMPDIR
	[ "$CRICTL" != "$HUSK_TOP/test/e2e/cri-client" ] || skip "no crictl: the client that takes its place has no streams"
	husk run -d --name "s$BATS_TEST_NUMBER" "$BUSYBOX" sleep 100000 >/dev/null
	ct=$(husk ps -q)
}

# The FIFOs of all commands are gone, and huskd holds no more descriptors than before: FILES.
nothing_left() {
	[ -z "$(ls "$HUSK_E2E/main/exec")" ] && [ "$(ls "/proc/$(huskd_pid main)/fd" | wc -l)" -le "$1" ]
}
files_of_huskd() { ls "/proc/$(huskd_pid main)/fd" | wc -l; }

# on_terminal COMMAND...: with a terminal of 33 lines and 77 columns; its output, without CR.
on_terminal() {
	local words
	printf -v words '%q ' "$@"
	script -qec "stty rows 33 cols 77; $words" /dev/null </dev/null | sed 's/\r//; s/\^@//' # what script types at the end
}
crictl_words() { echo "$CRICTL" -c "$HUSK_E2E/main/crictl.yaml"; }

# slow_sum BYTES-PER-SECOND: reads no faster; how many bytes, and their SHA-256.
slow_sum() {
	python3 -c '
import hashlib, sys, time
n, h = 0, hashlib.sha256()
while data := sys.stdin.buffer.read(65536):
    n += len(data)
    h.update(data)
    time.sleep(len(data) / float(sys.argv[1]))
print(n, h.hexdigest())' "$1"
}

@test "exec: streams, exit codes and a missing program, with both transports" {
	for transport in spdy websocket; do
		run -0 --separate-stderr crictl exec -r "$transport" "$ct" sh -c 'echo out; echo err >&2'
		[ "$output" = out ]
		[ "$stderr" = err ]
		run -1 crictl exec -r "$transport" "$ct" sh -c 'exit 3'
		[[ $output == *"exit code 3"* ]]
		run -1 crictl exec -r "$transport" "$ct" sh -c 'kill -9 $$'
		[[ $output == *"exit code 137"* ]]
		run -1 crictl exec -r "$transport" "$ct" nosuch
		[[ $output == *"start"*"nosuch"*"executable file not found"* ]]
	done
	run -1 crictl exec 0000000000 true
	[[ $output == *"no container 0000000000"* ]]
}

@test "exec: 10 MB of input come back byte by byte, and its end ends the command" {
	head -c 10000000 /dev/urandom >"$T/in"
	for transport in spdy websocket; do
		crictl exec -i -r "$transport" "$ct" cat <"$T/in" | cmp - "$T/in"
	done
	# The other direction may end first, and what comes then is dropped.
	crictl exec -i "$ct" sh -c 'exec 1>&- 2>&-; wc -c >/tmp/size' <"$T/in"
	run -0 crictl exec "$ct" cat /tmp/size
	[ "$output" = 10000000 ]
	run -0 --separate-stderr crictl exec -i "$ct" sh -c 'exec 0<&-; sleep 0.5; echo end' <"$T/in"
	[ "$output" = end ]
}

@test "exec: a slow reader gets every byte, also when the command has ended" {
	want="$(yes 0123456789abcdef | head -c 50000000 | sha256sum | cut -d' ' -f1)"
	for transport in spdy websocket; do
		sum=$(crictl exec -r "$transport" "$ct" sh -c 'yes 0123456789abcdef | head -c 50000000' | slow_sum 15e6)
		[ "$sum" = "50000000 $want" ]
	done
	want="$(yes 0123456789abcdef | head -c 1000000 | sha256sum | cut -d' ' -f1)"
	sum=$(crictl exec "$ct" sh -c 'yes 0123456789abcdef | head -c 1000000' | slow_sum 200e3)
	[ "$sum" = "1000000 $want" ]
}

@test "exec: a terminal has the client's size, and follows it" {
	for transport in spdy websocket; do
		run -0 on_terminal $(crictl_words) exec -it -r "$transport" "$ct" sh -c 'tty; until stty size 2>/dev/null; do sleep 0.1; done; echo $TERM'
		[ "$output" = $'/dev/pts/0\n33 77\nxterm' ]
	done
	HUSK_EXEC="$(crictl_words) exec -it $ct" run -0 python3 - <<-'EOS'
		import fcntl, os, pty, struct, sys, termios
		pid, fd = pty.fork()
		if pid == 0:
		    os.execvp("sh", ["sh", "-c", os.environ["HUSK_EXEC"] + " sh -c 'trap \"stty size; exit 5\" WINCH; echo ready; while :; do sleep 0.1; done'"])
		got = b""
		resized = False
		while True:
		    try:
		        data = os.read(fd, 1000)
		    except OSError:
		        break
		    got += data
		    if b"ready" in got and not resized:
		        resized = True
		        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 111, 0, 0))
		text = got.decode()
		assert "44 111" in text and "exit code 5" in text, text
	EOS
}

@test "exec: of a client that vanishes nothing is left, in the container and in huskd" {
	files=$(files_of_huskd)
	# A shell with a child in a session of its own; one on a terminal; one that writes what nobody reads.
	(sleep 5 | timeout -s KILL 2 $(crictl_words) exec -i "$ct" sh -c 'setsid sleep 1001 & sleep 1002') || true
	on_terminal timeout -s KILL 2 $(crictl_words) exec -it "$ct" sleep 1003 || true
	(timeout -s KILL 2 $(crictl_words) exec "$ct" sh -c 'yes sleep-1004' | sleep 3) || true
	only_ours() { ! crictl exec -s "$ct" sh -c 'cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\0" " "' | grep -E 'sleep.100[1-4]'; }
	wait_until 10 only_ours
	wait_until 10 nothing_left "$files"
}

@test "exec: 40 at a time, and after a restart of huskd" {
	for i in $(seq 40); do
		crictl exec -i "$ct" sh -c "cat; exit 0" <<<"$i" >"$T/out.$i" 2>&1 3>&- &
		pids[i]=$!
	done
	wait "${pids[@]}"
	for i in $(seq 40); do [ "$(cat "$T/out.$i")" = "$i" ]; done
	run -0 crictl exec "$ct" true
	crictl exec "$ct" sleep 1005 >"$T/cut" 2>&1 3>&- &
	runs() { crictl exec -s "$ct" ps | grep -q 'sleep 1005'; }
	wait_until 10 runs
	stop_huskd main
	! wait $!
	start_huskd main
	run -0 crictl exec "$ct" echo again
	[ "$output" = again ]
	wait_until 10 eval '! runs'
}
