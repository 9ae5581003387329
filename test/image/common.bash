# Shared by the suites of this folder: where things are, a registry, a mock.

. "$BATS_TEST_DIRNAME/../port.bash"

# For setup_file. HUSK_BUILD is the build directory (default: build).
image_env() {
	cd "$BATS_TEST_DIRNAME/../.."
	HUSK_BUILD=$(cd "${HUSK_BUILD:-build}" && pwd)
	export HUSK_BUILD BIN=$HUSK_BUILD/bin TOOL=$HUSK_BUILD/test/image-tool
	export IMAGE_TOOL_WORKER=$BIN/husk-image-worker IMAGE_TOOL_ARCH=amd64
	export HERE=$PWD/test/image IMAGES=$PWD/test/fixtures
	export PATH=$PATH:/sbin:/usr/sbin
	export WORK=$BATS_FILE_TMPDIR
}

# start_registry LAYOUTS [NAME...]: a real one, with all images or these, at $REG until stop_registry.
start_registry() {
	REG_PORT=$(free_port)
	export REG_PORT REG=127.0.0.1:$REG_PORT
	"$IMAGES/registry" start "$WORK/registry" "$REG_PORT"
	"$IMAGES/push-images" "$1" "$REG" "${@:2}"
}

stop_registry() { "$IMAGES/registry" stop "$WORK/registry" "$REG_PORT"; }

# answers URL: waits for a server.
answers() {
	local i
	for ((i = 0; i < 100; i++)); do
		curl -sk -o /dev/null "$1" && return 0
		sleep 0.1
	done
	return 1
}

# mock LAYOUTS FILES PORT [ADDRESS [CERT KEY]]: leaves FILES.pid and FILES.log
mock() {
	"$HERE/mock-registry" "$1" "${@:3}" >>"$2.log" 2>&1 3>&- &
	echo $! >"$2.pid"
	answers "http${5:+s}://${4:-127.0.0.1}:$3/"
}
