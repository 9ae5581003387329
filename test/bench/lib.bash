# Shared by the benchmarks and quickstart: a registry and a huskd of their own, stopped and removed at the end.
# Sourced after `set -euo pipefail`. Sets top, bin, dir, registry (HOST:PORT), HUSK_ENDPOINT.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$top/test/port.bash"
bin=${HUSK_BIN:-$top/build/bin}
cache=${HUSK_CACHE:-/var/cache/husk}
[ "$(id -u)" = 0 ] || { echo "VMs need root" >&2; exit 1; }
dir=$(mktemp -d /tmp/husk-bench.XXXXXX)
export HUSK_ENDPOINT=unix://$dir/husk.sock HUSK_LOG_DIR=$dir/logs
huskd_pid=
registry=

bench_finish() {
	local code=$? left
	trap - EXIT
	if [ -n "$huskd_pid" ]; then
		left=$("$bin/husk" ps -aq 2>/dev/null) && [ -n "$left" ] && "$bin/husk" rm -f $left >/dev/null
		kill "$huskd_pid" 2>/dev/null && wait "$huskd_pid" 2>/dev/null
	fi
	[ -z "$registry" ] || "$top/test/fixtures/registry" stop "$dir/registry" "${registry##*:}" || true
	[ "$code" = 0 ] || tail -n 20 "$dir/huskd.log" >&2 2>/dev/null || true
	rm -rf "$dir"
	exit "$code"
}
trap bench_finish EXIT
trap 'exit 130' INT TERM

# start_registry NAME...: with these test images.
start_registry() {
	local port
	port=$(free_port)
	"$top/test/fixtures/make-images" "$cache/images/oci" "$@" >&2
	"$top/test/fixtures/registry" start "$dir/registry" "$port" >&2
	registry=127.0.0.1:$port
	"$top/test/fixtures/push-images" "$cache/images/oci" "$registry" "$@" >&2
}

# start_huskd [FLAG...]
start_huskd() {
	local i
	"$bin/huskd" --root "$dir/root" --state "$dir" --listen "unix://$dir/husk.sock" \
		--backend "${HUSK_BACKEND:-auto}" "$@" >"$dir/huskd.log" 2>&1 </dev/null &
	huskd_pid=$!
	for ((i = 0; i < 100; i++)); do
		"$bin/husk" version >/dev/null 2>&1 && return 0
		kill -0 "$huskd_pid" 2>/dev/null || break
		sleep 0.1
	done
	echo "huskd does not answer" >&2
	return 1
}
