# Commands in containers with a client: exec and attach over both transports, what goes wrong, and what is left.

bats_require_minimum_version 1.5.0
load helpers

setup() {
	T=$BATS_TEST_TMPDIR
	[ -z "${HUSK_OWN_HOST:-}" ] || skip "its times are not those of the emulated host"
	[ "$CRICTL" != "$HUSK_TOP/test/e2e/cri-client" ] || [[ $BATS_TEST_DESCRIPTION == husk* ]] ||
		skip "no crictl: the client that takes its place has no streams"
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
		run -0 on_terminal $(crictl_words) exec -it -r "$transport" "$ct" sh -c 'tty; until stty size 2>/dev/null | grep .; do sleep 0.1; done; echo $TERM'
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
	# Also of one that was killed: the next one ends what has no client any more.
	crictl exec "$ct" sleep 1005 >"$T/cut" 2>&1 3>&- &
	wait_until 10 runs
	kill9_huskd main
	! wait $!
	start_huskd main
	wait_until 10 eval '! runs'
}

# with_input NAME JQ-CHANGE COMMAND...: a running container that has standard input; its id in $id.
with_input() {
	local name=$1 change=$2
	shift 2
	pod_json "$name" >"$T/pod.json"
	container_json main "$BUSYBOX" "$@" | jq ".stdin = true | $change" >"$T/ct.json"
	pod=$(crictl runp "$T/pod.json")
	id=$(crictl create "$pod" "$T/ct.json" "$T/pod.json")
	crictl start "$id"
}

@test "attach: two clients see the same; with stdin_once the end of input ends the process" {
	with_input attach '.stdin_once = true' sh -c 'while read x; do echo "got $x"; echo "err $x" >&2; done; echo over; exit 3'
	crictl attach -r websocket "$id" >"$T/other" 2>"$T/other.err" 3>&- &
	other=$!
	# Until it is there, too.
	(until [ -s "$T/other" ]; do echo ping; sleep 0.2; done; echo one) | crictl attach -i "$id" >"$T/mine" 2>"$T/mine.err"
	wait "$other"
	for who in mine other; do
		[ "$(tail -n 3 "$T/$who")" = $'got ping\ngot one\nover' ]
		[ "$(tail -n 2 "$T/$who.err")" = $'err ping\nerr one' ]
	done
	run -1 crictl attach "$id"
	[[ $output == *"is not running"* ]]
	run -0 --separate-stderr crictl logs "$id"
	[[ $output == *$'got ping\ngot one\nover' ]]
}

@test "attach: input goes on with the next client; a slow one gets every byte; after a restart of huskd" {
	with_input later '.' sh -c 'while read x; do echo "got $x"; [ "$x" = go ] && break; done; yes 0123456789abcdef | head -c 20000000; sleep 1'
	mkfifo "$T/in"
	exec 7<>"$T/in"
	echo one >&7
	$(crictl_words) attach -i "$id" <"$T/in" >"$T/first" 2>&1 3>&- 7>&- &
	first=$!
	wait_until 20 grep -qx "got one" "$T/first"
	kill -KILL "$first"
	exec 7>&-
	stop_huskd main
	start_huskd main
	want="$( (echo "got go"; yes 0123456789abcdef | head -c 20000000) | sha256sum | cut -d' ' -f1)"
	sum=$(echo go | crictl attach -i "$id" | slow_sum 5e6)
	[ "$sum" = "20000007 $want" ]
}

@test "attach: a terminal has the size of the client's" {
	with_input tty '.tty = true' sh -c 'until stty size 2>/dev/null | grep .; do sleep 0.1; done; read x; exit 0'
	run -0 bash -c '(sleep 1; echo end; sleep 5) | script -qec "stty rows 33 cols 77; $0" /dev/null' "$(crictl_words) attach -it $id"
	[[ $output == *"33 77"* ]]
}

@test "husk exec -i: streams, exit codes, much input" {
	name=s$BATS_TEST_NUMBER
	run -7 --separate-stderr husk exec -i "$name" sh -c 'cat; echo err >&2; exit 7' <<<hello
	[ "$output" = hello ]
	[ "$stderr" = err ]
	run -127 husk exec -i "$name" nosuch </dev/null
	[[ $output == *"executable file not found"* ]]
	head -c 20000000 /dev/urandom >"$T/in"
	husk exec -i "$name" cat <"$T/in" | cmp - "$T/in"
	run -2 husk exec -it "$name" true </dev/null
	[[ $output == *"-t needs a terminal"* ]]
}

@test "husk exec -it: the terminal's size, and the terminal as it was on every way out" {
	words="$HUSK_BIN/husk exec -it s$BATS_TEST_NUMBER"
	HUSK_EXEC=$words run -0 python3 - <<-'EOS'
		import fcntl, os, pty, signal, struct, termios, time
		def session(command, act):
		    """Runs it on a terminal of 33 x 77; act(output, fd, pid) for each piece; its output, and whether it left the terminal as it was."""
		    master, slave = pty.openpty()
		    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
		    before = termios.tcgetattr(slave)
		    pid = os.fork()
		    if pid == 0:
		        os.login_tty(slave) if hasattr(os, "login_tty") else (os.setsid(), fcntl.ioctl(slave, termios.TIOCSCTTY, 0), [os.dup2(slave, i) for i in range(3)])
		        os.execvp("sh", ["sh", "-c", "exec " + os.environ["HUSK_EXEC"] + " " + command])
		    got = b""
		    os.set_blocking(master, False)
		    end = time.time() + 60
		    while True:
		        done, status = os.waitpid(pid, os.WNOHANG)
		        try:
		            got += os.read(master, 4096)
		        except OSError:
		            pass
		        if done:
		            break
		        assert time.time() < end, got
		        act(got, master, slave, pid)
		        time.sleep(0.02)
		    return got.decode(), os.waitstatus_to_exitcode(status), termios.tcgetattr(slave) == before
		once = set()
		def first(what):
		    return what not in once and not once.add(what)
		def grow(got, master, slave, pid):
		    if b"ready" in got and first("grow"):
		        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 111, 0, 0))
		        os.kill(pid, signal.SIGWINCH)
		text, code, same = session("sh -c 'until stty size 2>/dev/null | grep .; do sleep 0.1; done; trap \"stty size; exit 5\" WINCH; echo ready; while :; do sleep 0.1; done'", grow)
		assert "33 77" in text and "44 111" in text and code == 5 and same, (text, code, same)
		def interrupt(got, master, slave, pid):
		    if b"ready" in got and first("interrupt"):
		        os.write(master, b"\x03") # for the program, not for husk
		text, code, same = session("sh -c 'trap \"exit 9\" INT; echo ready; while :; do sleep 0.1; done'", interrupt)
		assert code == 9 and same, (text, code, same)
		def flood(got, master, slave, pid):
		    if len(got) > 100000 and first("flood"):
		        os.write(master, b"\x03") # is sent, although there is always more to show
		text, code, same = session("yes", flood)
		assert code == 130 and same, (text[-100:], code, same)
		def terminate(got, master, slave, pid):
		    if b"ready" in got and first("terminate"):
		        os.kill(pid, signal.SIGTERM)
		text, code, same = session("sh -c 'echo ready; sleep 1006'", terminate)
		assert code == 143 and same, (text, code, same)
	EOS
	no_1006() { ! husk exec "s$BATS_TEST_NUMBER" ps | grep -q 'sleep 1006'; }
	wait_until 10 no_1006
}

# The kernel has taken the last bytes and the command has ended; nothing is lost when the client comes for them late.
@test "exec: a client that reads nothing for a while gets all, and the exit code" {
	crictl exec -r spdy "$ct" sh -c 'dd if=/dev/zero bs=64k count=24 2>/dev/null; exit 4' 2>"$T/err" | (sleep 12; wc -c) >"$T/n" || true
	[ "$(cat "$T/n")" = $((24 * 65536)) ]
	grep -q 'exit code 4' "$T/err"
}
