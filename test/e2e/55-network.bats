# CNI networks by Debian's own plug-ins. Each test has a huskd in a network namespace of its own, so that bridges
# and rules of iptables end with it.

bats_require_minimum_version 1.5.0
load helpers

setup() {
	[ -z "${HUSK_OWN_HOST:-}" ] || skip "nothing here depends on the backend, and the emulated host is too slow"
	local p
	for p in bridge host-local portmap; do
		[ -x "/usr/lib/cni/$p" ] || skip "no plug-in $p (package containernetworking-plugins)"
	done
	command -v iptables >/dev/null || skip "portmap needs iptables"
	T=$BATS_TEST_TMPDIR NS=husk-e2e-$$-$BATS_TEST_NUMBER
	mkdir "$T/conf" "$T/bin" "$T/leases"
	ip netns add "$NS"
	ip -n "$NS" link set lo up
	HUSKD_WITH=(nsenter --net="/run/netns/$NS")
	export HUSK_ENDPOINT=unix://$HUSK_E2E/net/husk.sock
	KEPT=$HUSK_STORE/net/net
}

teardown() {
	[ -n "${NS:-}" ] || return 0
	rm -f "$T"/bin/* # whatever a test did to them
	huskd_answers net || start_net cni
	remove_all_pods net
	stop_huskd net
	ip netns del "$NS"
	rm -rf "$HUSK_STORE/net"
}

in_ns() { nsenter --net="/run/netns/$NS" "$@"; }

# start_net MODE
start_net() {
	cat >"$T/huskd.yaml" <<-YAML
		network:
		  mode: $1
		  conf-dir: $T/conf
		  bin-dirs: [$T/bin, /usr/lib/cni]
	YAML
	start_huskd net --config "$T/huskd.yaml"
}

conf() {
	cat >"$T/conf/.new" <<-CONF
		{"cniVersion": "1.0.0", "name": "e2e", "plugins": [
		 {"type": "bridge", "bridge": "hk0", "isGateway": true, "ipMasq": true, "ipam": {"type": "host-local",
		  "dataDir": "$T/leases", "ranges": [[{"subnet": "10.231.7.0/24"}], [{"subnet": "fd31:7::/64"}]],
		  "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
		 {"type": "portmap", "capabilities": {"portMappings": true}}]}
	CONF
	mv "$T/conf/.new" "$T/conf/10-e2e.conflist"
}

# plugin NAME < SCRIPT: in front of the real one
plugin() {
	cat >"$T/bin/.$1"
	chmod 755 "$T/bin/.$1"
	mv "$T/bin/.$1" "$T/bin/$1"
}

condition() { crictl info 2>/dev/null | jq -e ".status.conditions[] | select(.type == \"NetworkReady\") | $1" >/dev/null; }

run_pod() {
	pod_json "$1" >"$T/$1.json"
	crictl runp "$T/$1.json"
}

addresses() { crictl inspectp "$1" | jq -r '.status.network | [.ip, .additionalIps[]?.ip] | join(" ")'; }

leases() { find "$T/leases" -name '[1f]*[0-9a-f]' -type f; }

# nothing_left: of no pod
nothing_left() {
	[ -z "$(leases)" ] && [ -z "$(ls "$KEPT" 2>/dev/null)" ] && [ -z "$(ip -n "$NS" -o link show type veth)" ] &&
		[[ $(in_ns iptables-save -t nat) != *10.231.7.[0-9]* ]]
}

clean() {
	wait_until 30 nothing_left || {
		leases
		ls "$KEPT"
		ip -n "$NS" -o link show type veth
		in_ns iptables-save -t nat
		return 1
	} >&2
	[ -z "${1:-}" ] || [ ! -e "/run/netns/husk-$1" ]
}

# Nobody listens there: a refusal is a packet each way.
refused() { [[ $(in_ns timeout 1 bash -c "exec 3<>/dev/tcp/$1/9" 2>&1) == *refused* ]]; }

@test "a configuration that comes makes the network ready; pods have addresses until they stop" {
	start_net auto
	condition '.status == false and .reason == "NetworkPluginNotReady" and (.message | startswith("no network configuration in "))'
	before=$(run_pod before)
	[ "$(addresses "$before")" = "" ]
	pod_json port | jq '.port_mappings = [{protocol: 0, container_port: 80, host_port: 8080}]' >"$T/port.json"
	run ! --separate-stderr crictl runp "$T/port.json"
	[[ $stderr == *"host port 8080: pods have no network here: no network configuration in "* ]]

	conf
	wait_until 30 condition '.status == true'
	port=$(crictl runp "$T/port.json")
	two=$(run_pod two)
	read -r v4 v6 < <(addresses "$port")
	[[ $v4 == 10.231.7.* && $v6 == fd31:7::* ]]
	[[ $(addresses "$two") == 10.231.7.* && $(addresses "$two") != "$v4 "* ]]
	[ "$(addresses "$before")" = "" ]
	wait_until 30 refused "$v4"
	wait_until 30 refused "$v6"
	[[ $(in_ns iptables-save -t nat) == *"--dport 8080 -j DNAT --to-destination $v4:80"* ]]
	run -0 --separate-stderr crictl inspectp "$port"
	jq -e --arg p "/run/netns/husk-$port" '.info.networkNamespace == $p and .info.cniResult.ips[0].gateway == "10.231.7.1"' <<<"$output"

	# The pods of the configuration that goes keep their network, and DEL knows it.
	rm "$T/conf/10-e2e.conflist"
	wait_until 30 condition '.status == false'
	[ "$(addresses "$port")" = "$v4 $v6" ]
	# No pod misses a network because its configuration is just being written anew.
	run ! --separate-stderr run_pod later
	[[ $stderr == *"no network: no network configuration in "* ]]
	crictl stopp "$port"
	[ ! -e "/run/netns/husk-$port" ]
	[ "$(addresses "$port")" = "" ]
	crictl stopp "$port" # again
	crictl rmp -f "$two"
	clean "$two"
}

@test "mode cni: no pod without a network" {
	start_net cni
	run ! --separate-stderr run_pod none
	[[ $stderr == *"code = FailedPrecondition"*"pod none: no network: no network configuration in $T/conf"* ]]
	echo '{"cniVersion": "1.0.0", "name": "x", "type": "nothere"}' >"$T/conf/x.conf"
	wait_until 30 condition '.message | contains("plug-in nothere is not in ")'
	run ! --separate-stderr run_pod none
	[[ $stderr == *"pod none: set up the network: plug-in nothere is not in $T/bin, /usr/lib/cni"* ]]
	[ "$(crictl pods -q)" = "" ]
	rm "$T/conf/x.conf"
	clean
}

@test "a plug-in that fails is named, and nothing stays; a DEL that fails can be repeated" {
	conf
	start_net cni
	plugin portmap <<-'SH'
		#!/bin/sh
		[ "$CNI_COMMAND" != ADD ] || { echo '{"code": 11, "msg": "no ports today"}'; exit 1; }
	SH
	run ! --separate-stderr run_pod bad
	[[ $stderr == *"pod bad: set up the network: plug-in portmap: no ports today (code 11)"* ]]
	[ "$(crictl pods -q)" = "" ]
	clean

	rm "$T/bin/portmap"
	pod=$(run_pod good)
	plugin portmap <<<$'#!/bin/sh\necho out of order >&2; exit 7'
	run ! --separate-stderr crictl stopp "$pod"
	[[ $stderr == *"take down the network: plug-in portmap failed with status 7"*"out of order"* ]]
	run -0 --separate-stderr crictl inspectp "$pod"
	jq -e '.status.state == "SANDBOX_NOTREADY"' <<<"$output"
	rm "$T/bin/portmap"
	crictl rmp "$pod"
	clean "$pod"
}

@test "a plug-in that hangs ends with the client's patience" {
	conf
	start_net cni
	plugin portmap <<-SH
		#!/bin/sh
		[ "\$CNI_COMMAND" = ADD ] || exit 0
		echo \$\$ >$T/hangs
		sleep 1000 & wait
	SH
	pod_json hang >"$T/hang.json"
	"$CRICTL" -c "$HUSK_E2E/net/crictl.yaml" runp "$T/hang.json" 3>&- & # not the function: it is killed
	client=$!
	wait_until 60 test -s "$T/hangs"
	kill "$client"
	clean
	wait_until 30 gone "$(cat "$T/hangs")"
	wait_until 30 no_pods
}

no_pods() { [ "$(crictl pods -q)" = "" ]; }

@test "huskd is killed in the middle of ADD: the next one takes it back" {
	conf
	start_net cni
	plugin portmap <<-SH
		#!/bin/sh
		[ "\$CNI_COMMAND" = ADD ] || exec /usr/lib/cni/portmap
		/usr/lib/cni/portmap >$T/result
		touch $T/midway
		sleep 5
		cat $T/result
	SH
	pod_json mid | jq '.port_mappings = [{protocol: 0, container_port: 80, host_port: 8080}]' >"$T/mid.json"
	crictl runp "$T/mid.json" 3>&- &
	client=$!
	wait_until 60 test -e "$T/midway"
	kill9_huskd net
	wait "$client" || true
	[ -n "$(leases)" ]
	id=$(basename "$KEPT"/*.json .json)
	[ -e "/run/netns/husk-$id" ]
	start_net cni
	clean "$id"
	no_pods
}

@test "the network of a pod outlives huskd, and ends with the virtual machine" {
	conf
	start_net cni
	pod=$(run_pod stays)
	had=$(addresses "$pod")
	kill9_huskd net
	start_net cni
	[ "$(addresses "$pod")" = "$had" ]
	[ -e "/run/netns/husk-$pod" ]
	kill -9 "$(pod_process net "$pod" husk-vmm)"
	clean "$pod"
	run -0 --separate-stderr crictl inspectp "$pod"
	jq -e '.status.state == "SANDBOX_NOTREADY" and (.status.network.ip // "") == ""' <<<"$output"
	crictl rmp "$pod"
}

# run_in POD NAME COMMAND...: a container of it
run_in() {
	local pod=$1 name=$2 ct
	shift 2
	container_json "$name" "$BUSYBOX" "$@" >"$T/$name.ct.json"
	ct=$(crictl create "$pod" "$T/$name.ct.json" "$T/$name.pod.json")
	crictl start "$ct" >/dev/null
	echo "$ct"
}

@test "two pods reach each other by both families, and the host reaches them, also by a host port" {
	conf
	start_net cni
	HUSK_ENDPOINT=unix://$HUSK_E2E/main/husk.sock husk save -o "$T/busybox.tar" "$BUSYBOX"
	husk load -i "$T/busybox.tar"
	pod_json serves | jq '.port_mappings = [{protocol: 0, container_port: 80, host_port: 8080}]' >"$T/serves.pod.json"
	pod_json asks >"$T/asks.pod.json"
	serves=$(crictl runp "$T/serves.pod.json")
	asks=$(crictl runp "$T/asks.pod.json")
	run_in "$serves" serves sh -c 'while :; do echo "from $(hostname)" | nc -l -p 80; done'
	client=$(run_in "$asks" asks sleep 1000)
	read -r v4 v6 < <(addresses "$serves")
	answers() { [ "$("$@" 2>/dev/null </dev/null)" = "from serves" ]; }
	for a in "$v4" "$v6"; do
		wait_until 30 answers crictl exec -s "$client" timeout 5 nc "$a" 80
		wait_until 30 answers in_ns timeout 5 bash -c "exec 3<>/dev/tcp/$a/80; cat <&3"
	done
	gate=$(ip -n "$NS" -4 -o addr show dev hk0 | sed 's/.*inet \([0-9.]*\).*/\1/')
	wait_until 30 answers in_ns timeout 5 bash -c "exec 3<>/dev/tcp/$gate/8080; cat <&3"
	crictl rmp -f "$serves" "$asks"
	clean "$serves"
}
