#!/usr/bin/env bats
# How the image library talks to registries: what is tried again and what is not, resuming, mirrors,
# tokens, TLS, proxies. Needs root and the packages of hack/install-deps. HUSK_BUILD is the build
# directory (default: build).

bats_require_minimum_version 1.5.0

load common

setup_file() {
	image_env
	export IMAGE_TOOL_RETRY_MS=1
	"$HERE/odd-images" "$WORK/odd"
	MOCK_PORT=$(free_port)
	export MOCK_PORT MOCK=127.0.0.1:$MOCK_PORT
	mock "$WORK/odd" "$WORK/mock" "$MOCK_PORT"
	LAYER=$(layer_of random)
	export LAYER
	LAYER_SIZE=$(stat -c %s "$WORK/odd/random/blobs/sha256/${LAYER#sha256:}")
	export LAYER_SIZE
}

teardown_file() {
	kill "$(cat "$WORK/mock.pid")" || true
}

setup() {
	STORE=$BATS_TEST_TMPDIR/store
	HOSTS=$BATS_TEST_TMPDIR/certs.d
	: >"$WORK/mock.log"
}

teardown() {
	local f
	for f in "$BATS_TEST_TMPDIR"/*.pid; do
		[ ! -e "$f" ] || kill "$(cat "$f")" || true
	done
}

tool() { timeout 60 "$TOOL" "$STORE" "$@"; }

layer_of() {
	jq -r '.layers[0].digest' "$WORK/odd/$1/blobs/sha256/$(
		jq -r '.manifests[0].digest' "$WORK/odd/$1/index.json" | cut -d: -f2)"
}

# refused REF CODE PART-OF-TEXT
refused() {
	local before
	before=$(tool list)
	run tool pull "$1"
	echo "$1: $output"
	[ "$status" -eq 1 ]
	[[ $output == "error $2 "* ]]
	[[ $output == *"$3"* ]]
	[ "$(tool list)" = "$before" ]
	[ -z "$(ls "$STORE/tmp")" ]
}

# Requests whose path begins with, or after .* has, this.
requests() { grep -c "^/$1" "$WORK/mock.log" || true; }

# sent [MODE]: bytes of layers that the mock has sent.
sent() { awk -v m="/v2/$1" '$1 == "sent" && index($3, m) { n += $2 } END { print n + 0 }' "$WORK/mock.log"; }

# hosts DIR: hosts.toml from standard input
hosts() {
	mkdir -p "$HOSTS/$1"
	cat >"$HOSTS/$1/hosts.toml"
	export IMAGE_TOOL_HOSTS=$HOSTS
}

@test "what cannot get better is asked for once, at every step" {
	local step status code
	for step in tag manifest config layer; do
		for status in 401:-13 403:-13 404:-2 400:-71 501:-121; do
			code=${status#*:}
			: >"$WORK/mock.log"
			refused "$MOCK/e${status%:*}-$step/index" "$code" "${status%:*}"
			case $step in
			tag) [ "$(requests .*manifests/latest)" = 1 ] ;;
			manifest) [ "$(requests .*manifests/sha256)" = 1 ] ;;
			config) [ "$(requests .*blobs)" = 1 ] ;;
			layer) [ "$(requests .*blobs)" = 2 ] ;;
			esac
		done
	done
}

@test "what may get better is tried again, at every step, and not for ever" {
	local step
	for step in tag manifest config layer; do
		: >"$WORK/mock.log"
		refused "$MOCK/e500-$step/index" -121 "500"
		[ "$(wc -l <"$WORK/mock.log")" -le 10 ]
		[ "$(wc -l <"$WORK/mock.log")" -ge 3 ]
	done
	tool pull "$MOCK/flaky500-2/index"
	tool pull "$MOCK/flaky503-2/index"
	tool pull "$MOCK/flaky408-2/index"
}

@test "429: Retry-After is honoured, and a long one is a refusal" {
	local start=$SECONDS
	tool pull "$MOCK/flaky429-1/good"
	[ $((SECONDS - start)) -ge 3 ] # tag, config and layer: a second each
	refused "$MOCK/later/good" -16 "asks to wait for 9999 s"
	[ "$(requests .*/later/)" = 1 ]
}

@test "a token service that fails: as the registry itself" {
	refused "$MOCK/e401-token/good" -13 "token service refuses access"
	refused "$MOCK/e403-token/good" -13 "token service refuses access"
	refused "$MOCK/e404-token/good" -2 "token service"
	refused "$MOCK/e500-token/good" -121 "token service answered 500"
	refused "$MOCK/tokennone/good" -71 "gave no token"
	refused "$MOCK/tokenbig/good" -27 "answer of more than"
}

@test "token services at bad places" {
	refused "$MOCK/tokenfile/good" -71 "bad address"
	refused "$MOCK/tokenlink/good" -71 "169.254.169.254"
}

@test "one token for all requests of a pull; another one when it ends" {
	tool pull "$MOCK/token/index"
	[ "$(requests .*token?)" = 1 ]
	# four requests, each token is good for two; the third is sent with the old one first
	tool pull "$MOCK/tokenshort/index"
	[ "$(requests .*mode=short)" = 2 ]
}

@test "credentials for the token service, and none for others" {
	run tool pull "$MOCK/tokenbasic/good" user wrong
	[[ $output == "error -13 "*"credentials do not help"* ]]
	IMAGE_TOOL_SERVER=https://elsewhere.example/v1/ run tool pull "$MOCK/tokenbasic/good" user pass
	[[ $output == "error -13 "*"no credentials"* ]]
	tool pull "$MOCK/tokenbasic/good" user pass
}

@test "identity tokens by POST, by GET where that is not known; a token to be used as it is" {
	IMAGE_TOOL_IDENTITY=refresh-me tool pull "$MOCK/tokenidentity/good"
	grep -q "^POST .*client_id.*grant_type.*refresh_token" "$WORK/mock.log"
	IMAGE_TOOL_IDENTITY=refresh-me tool pull "$MOCK/tokenidentityget/good"
	IMAGE_TOOL_IDENTITY=wrong run tool pull "$MOCK/tokenidentity/second"
	[[ $output == "error -13 "* ]]
	: >"$WORK/mock.log"
	IMAGE_TOOL_TOKEN=secret-token tool pull "$MOCK/token/second"
	[ "$(requests .*token?)" = 0 ]
}

@test "a connection that is cut every 64 KiB: each byte is fetched once" {
	local layer
	layer=$(layer_of random4)
	tool pull "$MOCK/cutevery/random4"
	[ "$(sent)" = "$(stat -c %s "$WORK/odd/random4/blobs/sha256/${layer#sha256:}")" ]
	[ "$(requests ".*blobs/$layer")" -ge 64 ]
}

@test "a blob that is cut goes on where it was, whatever the server makes of Range" {
	tool pull "$MOCK/cutonce/random"
	[ "$(sent)" = "$LAYER_SIZE" ]
	rm -r "$STORE"
	tool pull "$MOCK/norange/random"
	rm -r "$STORE"
	tool pull "$MOCK/badrange/random"
	rm -r "$STORE"
	tool pull "$MOCK/range416/random"
}

@test "a server that says nothing more: hung up and asked again, and not for ever" {
	export IMAGE_TOOL_STALL_S=1
	tool pull "$MOCK/stall/random"
	[ "$(sent)" = "$LAYER_SIZE" ]
	refused "$MOCK/slowheaders/good" -110 "too slow"
}

@test "a server that drips is given up, and another one goes on" {
	export IMAGE_TOOL_STALL_S=1
	# 2,000 bytes a second: never silent, and done in an hour
	refused "$MOCK/drip/random" -110 "too slow: less than 8 KiB a second"
	[ "$(requests v2/drip/random/blobs/$LAYER)" = 1 ]
	[ "$(stat -c %s "$STORE/ingest/sha256/"*)" -ge 15000 ]
	rm -r "$STORE"
	hosts registry.test <<-TOML
		server = "http://$MOCK"
		[host."http://$MOCK/m/drip"]
	TOML
	tool pull registry.test/ok/random
	# Both have noticed that nobody listens, and write no more into the log.
	for _ in $(seq 100); do
		[ "$(grep -c '^sent .*drip' "$WORK/mock.log")" -lt 2 ] || break
		sleep 0.1
	done
	[ "$(grep -c '^sent .*drip' "$WORK/mock.log")" = 2 ]
	# the server has sent the rest only
	[ "$(awk '$1 == "sent" && index($3, "/v2/ok/") == 1 { n += $2 } END { print n }' "$WORK/mock.log")" \
		-lt $((LAYER_SIZE - 10000)) ]
}

@test "what came before a failure is kept for the next pull" {
	refused "$MOCK/cut/random" -121 "broke the connection (after"
	local had
	had=$(stat -c %s "$STORE/ingest/sha256/"*)
	[ "$had" -ge $((LAYER_SIZE / 2)) ]
	tool pull "$MOCK/ok/random"
	[ "$(sent ok)" = $((LAYER_SIZE - had)) ]
}

@test "headers without end" {
	refused "$MOCK/headers/good" -27 "headers"
}

# A pull that is killed after a while: FRACTION of the bytes are there, at least.
start_slowly() {
	timeout 60 "$TOOL" "$STORE" pull "$MOCK/slow/random" >/dev/null 2>&1 3>&- &
	PULL=$!
	local i
	for ((i = 0; i < 200; i++)); do
		[ "$(stat -c %s "$STORE/ingest/sha256/"* 2>/dev/null || echo 0)" -gt 4000000 ] && return 0
		sleep 0.05
	done
	return 1
}

@test "kill -9 of the owner in mid-download: the next pull fetches only the rest" {
	start_slowly
	pkill -9 -P $PULL image-tool
	wait $PULL || true
	local had
	sleep 0.2
	had=$(stat -c %s "$STORE/ingest/sha256/"*)
	: >"$WORK/mock.log"
	tool pull "$MOCK/ok/random"
	echo "had $had, sent $(sent ok) of $LAYER_SIZE"
	[ "$had" -gt 4000000 ]
	[ "$(sent ok)" = $((LAYER_SIZE - had)) ]
	[ -z "$(ls "$STORE/ingest/sha256")" ]
}

@test "a cancelled pull: the next one in the same store fetches only the rest" {
	tool pull-cancel "$MOCK/slow/random" 600
	local had
	had=$(stat -c %s "$STORE/ingest/sha256/"*)
	[ "$had" -gt 0 ]
	: >"$WORK/mock.log"
	tool pull "$MOCK/ok/random"
	[ "$(sent ok)" = $((LAYER_SIZE - had)) ]
}

@test "two pulls of one layer: when one is cancelled the other goes on with its bytes" {
	local layer
	layer=$(layer_of random4)
	run tool pull-two "$MOCK/slow/random4" 700
	echo "$output"
	[ "$status" -eq 0 ]
	[[ $output == "cancelled"*"sha256:"* ]]
	# the second request, if the cancelled one had begun, is for the rest
	[ "$(requests ".*blobs/$layer - -")" = 1 ]
	[ "$(requests ".*blobs/$layer - bytes=[0-9]*-")" -le 1 ]
}

@test "what was there from before is not trusted" {
	tool pull-cancel "$MOCK/slow/random" 600
	printf XXXX | dd of="$(ls "$STORE/ingest/sha256/"*)" bs=1 seek=1000 conv=notrunc status=none
	tool pull "$MOCK/ok/random"
	rm -r "$STORE"
	tool list
	head -c 50M /dev/zero >"$STORE/ingest/sha256/${LAYER#sha256:}"
	tool pull "$MOCK/ok/random"
}

@test "redirects: to another host, not to this machine, the link, files or downwards" {
	tool pull "$MOCK/redirect/good"
	# the token goes along to the same host, and not to another one
	tool pull "$MOCK/tokenredirect/second"
	[ "$(requests "v2/token/second/blobs/.* Bearer secret-token")" = 2 ]
	refused "$MOCK/tokenaway/zstd" -13 "401"
	[ "$(requests "v2/token/zstd/blobs/.* - -")" = 1 ]
	refused "$MOCK/redirectlink/good" -71 "169.254.169.254"
	refused "$MOCK/redirectfile/good" -71 "redirects"
	refused "$MOCK/redirectloop/good" -71 "more than 5 times"
}

@test "mirrors are tried in order, then the server; a dead one costs one try" {
	hosts registry.test <<-TOML
		server = "http://$MOCK"
		[host."http://127.0.0.1:1"]
		  capabilities = ["pull", "resolve"]
		[host."http://$MOCK/m/e404"]
		[host."http://$MOCK/m/ok"]
		  capabilities = ["pull"]
	TOML
	tool pull registry.test/ok/good
	# the tag from the server, the rest from the mirror that may not resolve
	[ "$(requests "v2/ok/good/manifests/latest?ns=registry.test")" = 1 ]
	[ "$(requests "m/ok/v2/ok/good/blobs/.*ns=registry.test")" = 2 ]
	[ "$(requests "m/ok/v2/ok/good/manifests")" = 0 ]
	tool get registry.test/ok/good
}

@test "mirrors: all that fail are told" {
	hosts registry.test <<-TOML
		server = "http://$MOCK/m/e403"
		[host."http://$MOCK/m/e500"]
	TOML
	refused registry.test/ok/good -13 "mock says 403 (before that, $MOCK answered 500"
}

@test "mirrors: a layer goes on at the next one, and a liar is left" {
	hosts registry.test <<-TOML
		server = "http://$MOCK"
		[host."http://$MOCK/m/cut"]
	TOML
	tool pull registry.test/ok/random
	[ "$(sent)" = "$LAYER_SIZE" ]
	rm -r "$STORE"
	hosts registry.test <<-TOML
		server = "http://$MOCK"
		[host."http://$MOCK/m/wrongblob"]
	TOML
	tool pull registry.test/ok/random
	rm -r "$STORE"
	hosts registry.test <<-TOML
		server = "http://$MOCK"
		[host."http://$MOCK/m/wrongconfig"]
	TOML
	tool pull registry.test/ok/good
	hosts registry.test <<-TOML
		server = "http://$MOCK/m/wrongblob"
		[host."http://$MOCK/m/wrongblob"]
	TOML
	rm -r "$STORE"
	refused registry.test/ok/random -74 "wrong digest"
}

@test "mirrors: credentials are not theirs, headers are" {
	hosts registry.test <<-TOML
		server = "http://$MOCK"
		[host."http://$MOCK/m/tokenbasic"]
	TOML
	# the mirror's token service wants them, and does not get them: the server does
	tool pull registry.test/tokenbasic/good user pass
	[ "$(requests ".*mode=basic.* -")" -ge 1 ]
	[ "$(requests "v2/tokenbasic/good/blobs")" -ge 2 ]
	rm -r "$STORE"
	hosts registry.test <<-TOML
		[host."http://$MOCK/m/token"]
		  [host."http://$MOCK/m/token".header]
		    Authorization = "Bearer secret-token"
	TOML
	: >"$WORK/mock.log"
	tool pull registry.test/token/good
	[ "$(requests .*token?)" = 0 ]
}

@test "hosts.toml: _default, override_path, and mistakes" {
	hosts _default <<-TOML
		[host."http://$MOCK/m/ok/v2"]
		  override_path = true
	TOML
	tool pull any.test/ok/good
	hosts registry.test <<-TOML
		[host."http://$MOCK"]
		  capabilities = ["pull", "fly"]
	TOML
	refused registry.test/ok/good -22 "hosts.toml:2: capabilities are"
	hosts registry.test <<-TOML
		[host."ftp://$MOCK"]
	TOML
	refused registry.test/ok/good -22 "bad address"
	hosts registry.test <<-TOML
		ca = "missing.crt"
	TOML
	refused registry.test/ok/good -22 "missing.crt"
	hosts registry.test <<-TOML
		server = "http://$MOCK"
		capabilities = ["push"]
	TOML
	refused registry.test/ok/good -95 "allowed to resolve tags"
}

# certificate NAME SUBJECT-ALT-NAME: NAME.crt, NAME.key, by the CA ca.crt
certificate() {
	openssl req -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=${1##*/}" 2>/dev/null
	openssl x509 -req -in "$1.csr" -CA "${1%/*}/ca.crt" -CAkey "${1%/*}/ca.key" -CAcreateserial \
		-days 2 -out "$1.crt" -extfile <(echo "subjectAltName=$2") 2>/dev/null
}

make_ca() {
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout "$1/ca.key" -out "$1/ca.crt" \
		-subj "/CN=Husk test CA" 2>/dev/null
}

@test "a real registry with TLS, a CA of its own and client certificates; HTTP/2" {
	local d=$BATS_TEST_TMPDIR port=$(free_port) conf
	make_ca "$d"
	certificate "$d/server" IP:127.0.0.1,DNS:localhost
	certificate "$d/client" DNS:client
	"$IMAGES/make-images" "$d/oci" busybox
	"$IMAGES/registry" start "$d/reg" $((port + 1))
	"$IMAGES/push-images" "$d/oci" "127.0.0.1:$((port + 1))"
	"$IMAGES/registry" stop "$d/reg" $((port + 1))
	conf=$d/tls.yml
	cat >"$conf" <<-YML
		version: 0.1
		log: {level: info}
		storage: {filesystem: {rootdirectory: "$d/reg/data"}}
		http:
		  addr: "127.0.0.1:$port"
		  secret: husk-test
		  tls: {certificate: "$d/server.crt", key: "$d/server.key", clientcas: ["$d/ca.crt"]}
	YML
	docker-registry serve "$conf" >"$d/registry.log" 2>&1 3>&- &
	echo $! >"$d/registry.pid"
	for ((i = 0; i < 100; i++)); do
		curl -s -o /dev/null --cacert "$d/ca.crt" --cert "$d/client.crt" --key "$d/client.key" \
			"https://127.0.0.1:$port/v2/" && break
		sleep 0.1
	done
	hosts "127.0.0.1_${port}_" <<-TOML
		server = "https://127.0.0.1:$port"
	TOML
	refused "127.0.0.1:$port/library/busybox" -71 "not to be trusted"
	hosts "127.0.0.1_${port}_" <<-TOML
		server = "https://127.0.0.1:$port"
		ca = "$d/ca.crt"
	TOML
	run tool pull "127.0.0.1:$port/library/busybox"
	[ "$status" -ne 0 ] # no certificate of ours
	hosts "127.0.0.1_${port}_" <<-TOML
		server = "https://127.0.0.1:$port"
		ca = ["ca.crt"]
		client = [["client.crt", "client.key"]]
	TOML
	cp "$d/ca.crt" "$d/client.crt" "$d/client.key" "$HOSTS/127.0.0.1_${port}_/"
	tool pull "127.0.0.1:$port/library/busybox"
	grep -q 'http.request.*HTTP/2\|proto=HTTP/2\|HTTP/2.0' "$d/registry.log"
	rm -r "$STORE"
	hosts "127.0.0.1_${port}_" <<-TOML
		server = "https://127.0.0.1:$port"
		skip_verify = true
		client = [["client.crt", "client.key"]]
	TOML
	tool pull "127.0.0.1:$port/library/busybox"
	# Docker's way: the same files without a hosts.toml; HTTPS for another name of this machine
	rm -r "$STORE" "$HOSTS/127.0.0.1_${port}_/hosts.toml"
	mv "$HOSTS/127.0.0.1_${port}_/client.crt" "$HOSTS/127.0.0.1_${port}_/client.cert"
	tool pull "127.0.0.1:$port/library/busybox"
}

@test "registries elsewhere may not send us to this machine, nor from https to http" {
	local d=$BATS_TEST_TMPDIR port=$(free_port)
	make_ca "$d"
	certificate "$d/server" IP:192.0.2.1
	# in a network namespace of its own, 192.0.2.1 is a machine elsewhere
	cat >"$d/inside" <<-SH
		set -e
		ip link set lo up
		ip addr add 192.0.2.1/32 dev lo
		"$HERE/mock-registry" "$WORK/odd" $port 192.0.2.1 "$d/server.crt" "$d/server.key" >"$d/mock.log" 2>&1 &
		trap 'kill \$!' EXIT
		for i in \$(seq 50); do
			curl -sk -o /dev/null "https://192.0.2.1:$port/" && break
			sleep 0.1
		done
		export IMAGE_TOOL_HOSTS="$HOSTS"
		for mode in ok redirectlocal redirectname redirecthttp tokenhttp tokenlink; do
			echo "== \$mode"
			timeout 60 "$TOOL" "$STORE" pull "192.0.2.1:$port/\$mode/good" 2>&1 || true
		done
	SH
	hosts "192.0.2.1_${port}_" <<-TOML
		ca = "$d/ca.crt"
	TOML
	run unshare -n bash "$d/inside"
	echo "$output"
	[[ $output == *"== ok"$'\n'"sha256:"* ]]
	[[ $output == *"== redirectlocal"$'\n'"error -71 "*"redirects to something"* ]]
	[[ $output == *"== redirectname"$'\n'"error -71 "*"redirects to something"* ]]
	[[ $output == *"== redirecthttp"$'\n'"error -71 "*"redirects to something"* ]]
	[[ $output == *"== tokenhttp"$'\n'"error -71 "*"bad address"* ]]
	[[ $output == *"== tokenlink"$'\n'"error -71 "*"bad address"* ]]
	# the same registry by http: now it is the address that is refused
	sed -i 's/ "[^"]*server.crt" "[^"]*server.key"//; s/https:/http:/' "$d/inside"
	hosts "192.0.2.1_${port}_" <<-TOML
		server = "http://192.0.2.1:$port"
	TOML
	run unshare -n bash "$d/inside"
	echo "$output"
	[[ $output == *"== redirectlocal"$'\n'"error -71 "*"sends us to 127.0.0.1"* ]]
	[[ $output == *"== redirectname"$'\n'"error -71 "*"sends us to localhost"* ]]
	[[ $output == *"== tokenlink"$'\n'"error -71 "*"sends us to 169.254.169.254"* ]]
}

@test "a registry may not send us to a place more private than its own" {
	local d=$BATS_TEST_TMPDIR port=$(free_port) a mode
	local public=192.0.2.1 private=10.0.0.9
	export -f answers mock
	printf '127.0.0.1 localhost\n%s inner.test\n%s meta.test\n' "$private" 100.100.100.200 >"$d/hosts"
	# In namespaces of their own: a machine elsewhere, one of a private network, and metadata.
	cat >"$d/inside" <<-SH
		set -e
		mount --bind "$d/hosts" /etc/hosts
		ip link set lo up
		for a in $public $private 10.1.1.1 100.100.100.200; do
			ip addr add \$a/32 dev lo
			mock "$WORK/odd" "$d/\$a" $port \$a
		done
		export IMAGE_TOOL_HOSTS="$HOSTS"
		while read -r ref; do
			echo "== \$ref"
			rm -rf "$STORE"
			timeout 60 "$TOOL" "$STORE" pull "\$ref" 2>&1 || true
		done
	SH
	for a in $public $private 100.100.100.200; do
		hosts "${a}_${port}_" <<-TOML
			server = "http://$a:$port"
		TOML
	done
	for a in $public $private; do
		for mode in ok redirectgoto-10.1.1.1 redirectgoto-inner.test redirectgoto-64_ff9b__a00_1 \
			redirectgoto-meta.test redirectgoto-fd00_ec2__254 redirectgoto-127.0.0.1 \
			tokengoto-10.1.1.1 tokengoto-inner.test tokengoto-meta.test tokengoto-169.254.169.254 \
			tokengoto-2002_a9fe_a9fe__1; do
			echo "$a:$port/$mode/good"
		done
	done >"$d/refs"
	echo "100.100.100.200:$port/ok/good" >>"$d/refs"
	run unshare -n -m bash "$d/inside" <"$d/refs"
	echo "$output"
	[[ $output == *"== $public:$port/ok/good"$'\n'"sha256:"* ]]
	[[ $output == *"== $private:$port/ok/good"$'\n'"sha256:"* ]]
	# within the private network, and from outside into it
	for mode in redirectgoto-10.1.1.1 redirectgoto-inner.test; do
		[[ $output == *"== $private:$port/$mode/good"$'\n'"sha256:"* ]]
		[[ $output == *"== $public:$port/$mode/good"$'\n'"error -71 "*"sends us to 10."*"private network"* ]]
	done
	[[ $output == *"== $public:$port/redirectgoto-64_ff9b__a00_1/good"$'\n'"error -71 "*"sends us to 64:ff9b::a00:1"* ]]
	[[ $output == *"== $public:$port/tokengoto-10.1.1.1/good"$'\n'"error -71 "*"sends us to 10.1.1.1"* ]]
	[[ $output == *"== $public:$port/tokengoto-inner.test/good"$'\n'"error -71 "*"sends us to $private"* ]]
	# the token service of a private network was asked
	[[ $output == *"== $private:$port/tokengoto-inner.test/good"$'\n'"error -13 "* ]]
	for a in $public $private; do
		[[ $output == *"== $a:$port/redirectgoto-127.0.0.1/good"$'\n'"error -71 "*"sends us to 127.0.0.1"* ]]
		for mode in redirectgoto tokengoto; do
			[[ $output == *"== $a:$port/$mode-meta.test/good"$'\n'"error -71 "*"sends us to 100.100.100.200"* ]]
		done
		[[ $output == *"== $a:$port/redirectgoto-fd00_ec2__254/good"$'\n'"error -71 "*"sends us to fd00:ec2::254"* ]]
		[[ $output == *"== $a:$port/tokengoto-169.254.169.254/good"$'\n'"error -71 "*"sends us to 169.254.169.254"* ]]
		[[ $output == *"== $a:$port/tokengoto-2002_a9fe_a9fe__1/good"$'\n'"error -71 "*"sends us to 2002:a9fe:a9fe::1"* ]]
	done
	# metadata are no registry
	[[ $output == *"== 100.100.100.200:$port/ok/good"$'\n'"error -71 "*"metadata"* ]]
	[ -e "$d/100.100.100.200.log" ]
	run -1 grep "^/v2" "$d/100.100.100.200.log"
}

@test "names are asked of a DNS server, by UDP and, where that is cut, by TCP" {
	local d=$BATS_TEST_TMPDIR port=$(free_port)
	export -f answers mock
	echo 'nameserver 127.0.0.1' >"$d/resolv.conf"
	echo 'hosts: files mdns4_minimal dns' >"$d/nsswitch.conf"
	# cut.test has no answer by UDP but "ask by TCP".
	cat >"$d/dns.py" <<-'PY'
		import socket, struct, threading
		def answer(q, tcp):
		    end = 12
		    while q[end]:
		        end += q[end] + 1
		    end += 5
		    kind = struct.unpack(">H", q[end - 4:end - 2])[0]
		    cut = b"\3cut\4test" in q and not tcp
		    has = kind == 1 and not cut and q[12:].startswith((b"\3reg\4test", b"\3cut\4test"))
		    head = struct.pack(">HHHHHH", struct.unpack(">H", q[:2])[0], 0x8180 | (0x200 if cut else 0), 1, has, 0, 0)
		    return head + q[12:end] + (b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1" if has else b"")
		def tcp(s):
		    while True:
		        c, _ = s.accept()
		        q = c.recv(2048)
		        while q:
		            n = struct.unpack(">H", q[:2])[0]
		            a = answer(q[2:2 + n], True)
		            print("tcp", flush=True)
		            c.sendall(struct.pack(">H", len(a)) + a)
		            q = q[2 + n:] or c.recv(2048)
		        c.close()
		u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		t = socket.socket()
		u.bind(("127.0.0.1", 53))
		t.bind(("127.0.0.1", 53))
		t.listen()
		threading.Thread(target=tcp, args=(t,), daemon=True).start()
		while True:
		    q, who = u.recvfrom(2048)
		    print("udp", flush=True)
		    u.sendto(answer(q, False), who)
	PY
	cat >"$d/inside" <<-SH
		set -e
		mount --bind "$d/resolv.conf" "\$(readlink -f /etc/resolv.conf)"
		mount --bind "$d/nsswitch.conf" /etc/nsswitch.conf
		ip link set lo up
		python3 "$d/dns.py" >"$d/dns.log" 2>&1 3>&- &
		echo \$! >"$d/dns.pid"
		mock "$WORK/odd" "$d/mock" $port
		export IMAGE_TOOL_HOSTS="$HOSTS"
		for name in reg cut no; do
			echo "== \$name"
			rm -rf "$STORE"
			timeout 60 "$TOOL" "$STORE" pull "\$name.test:$port/ok/good" 2>&1 || true
		done
	SH
	for name in reg cut no; do
		hosts "$name.test_${port}_" <<-TOML
			server = "http://$name.test:$port"
		TOML
	done
	run unshare -n -m bash "$d/inside"
	echo "$output"
	cat "$d/dns.log"
	[[ $output == *"== reg"$'\n'"sha256:"* ]]
	[[ $output == *"== cut"$'\n'"sha256:"* ]]
	[[ $output == *"== no"$'\n'"error -113 "*"unknown host"* ]]
	grep -q udp "$d/dns.log"
	grep -q tcp "$d/dns.log"
}

@test "proxies of the environment, and NO_PROXY" {
	local port=$(free_port) p
	hosts registry.test <<-TOML
		server = "http://registry.test"
	TOML
	# A proxy: the mock understands absolute URLs when it is told to.
	python3 - "$port" "$MOCK_PORT" >"$BATS_TEST_TMPDIR/proxy.log" 2>&1 3>&- <<-'PY' &
		import http.server, sys, urllib.request
		class H(http.server.BaseHTTPRequestHandler):
		    def do_GET(self):
		        print(self.path, flush=True)
		        path = self.path.replace("http://registry.test", "http://127.0.0.1:" + sys.argv[2])
		        r = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
		            urllib.request.Request(path, headers={"Accept": self.headers.get("Accept", "*/*")}))
		        body = r.read()
		        self.send_response(200)
		        self.send_header("Content-Type", r.headers.get("Content-Type", ""))
		        self.send_header("Content-Length", str(len(body)))
		        self.end_headers()
		        self.wfile.write(body)
		    def log_message(self, *a): pass
		http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
	PY
	echo $! >"$BATS_TEST_TMPDIR/proxy.pid"
	for ((i = 0; i < 50; i++)); do
		(exec 9<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
		sleep 0.1
	done
	p=http://127.0.0.1:$port
	HTTP_PROXY=$p tool pull registry.test/ok/good
	grep -q "^http://registry.test/v2/ok/good/manifests/latest" "$BATS_TEST_TMPDIR/proxy.log"
	rm -r "$STORE"
	# this machine is never reached by a proxy, and NO_PROXY's hosts are not
	http_proxy=http://127.0.0.1:1 tool pull "$MOCK/ok/good"
	hosts registry.test <<-TOML
		server = "http://no-such-host.invalid"
	TOML
	HTTP_PROXY=$p NO_PROXY=.invalid run tool pull registry.test/ok/good
	[[ $output == "error -113 "* ]]
}
