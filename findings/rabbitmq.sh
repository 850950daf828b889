# Sourced by the scripts beside it: a RabbitMQ node of a Debian release, in a temporary folder that is gone at the end.
#
# The release is installed into $root by script/rabbitmq-root. What the node needs of the running system is bound into
# it in a mount name space of the node's own, so nothing is left mounted. Name, ports, data and cookie are its own, and
# all is on loopback: a RabbitMQ that the machine runs does not notice.
# shellcheck shell=bash
set -euo pipefail

work='' node='' epmd=''

say() {
    printf '%s\n' "$@"
}

fail() {
    printf 'FAILED: %s\n' "$@" >&2
    exit 1
}

# Whatever happened, nothing is left: the data is of no use to anybody, so the node may be killed.
clean_up() {
    local status=$? process
    set +e
    trap - EXIT INT TERM
    for process in $(jobs -p); do
        kill -KILL "$process"
        wait "$process"
    done 2>/dev/null
    [ -z "$work" ] || rm -rf --one-file-system "$work"
    exit "$status"
}

[ "$(id -u)" = 0 ] || fail "this needs root: it makes a root file system and starts programs in it"
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
trap clean_up EXIT
trap 'exit 130' INT TERM
work=$(mktemp -d)
root=$work/root
home=/node  # the node's folder, as it sees it

# install_broker SUITE VERSION REQUIREMENT…: that release's RabbitMQ, which is to be of this version, and what clients
# need of PyPI. One port more is found than the node needs: $other_port.
install_broker() {
    local found
    say "installing RabbitMQ of Debian $1, and $3…"
    "$checkout/script/rabbitmq-root" "$1" "$root" >/dev/null
    found=$(installed rabbitmq-server)
    [ "${found%%-*}" = "$2" ] || fail "Debian $1 has RabbitMQ ${found%%-*} by now; this was seen with $2"
    say "RabbitMQ $found, Erlang $(installed erlang-base)"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check "${@:3}"
    mkdir -p "$root$home/conf.d" "$root$home/data" "$root$home/log"
    read -r port epmd_port distribution_port other_port < <(free_ports 4)
    export PORT="$port" OTHER_PORT="$other_port"  # for Python programs
}

installed() {
    chroot "$root" dpkg-query --showformat='${Version}' --show "$1"
}

# free_ports COUNT: all are held until the last is found, so no two are the same.
free_ports() {
    python3 -c 'import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(one.getsockname()[1] for one in held))' "$1"
}

# inside PROGRAM ARGUMENT…: run it in the root, with the node's environment and nothing of ours; keeps the process id.
inside() {
    exec unshare --mount --propagation private sh -c '
        root=$1; shift
        for folder in /proc /dev /sys; do mount --rbind "$folder" "$root$folder" || exit; done
        exec chroot "$root" "$@"' sh "$root" /usr/bin/env -i \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME="$home" \
        ERL_EPMD_PORT="$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_NODENAME=finding@localhost RABBITMQ_DIST_PORT="$distribution_port" \
        RABBITMQ_CONF_ENV_FILE="$home/none" RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" \
        RABBITMQ_CONFIG_FILES="$home/conf.d" RABBITMQ_ADVANCED_CONFIG_FILE="$home/none.config" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" RABBITMQ_MNESIA_BASE="$home/data" \
        RABBITMQ_LOG_BASE="$home/log" RABBITMQ_PID_FILE="$home/rabbitmq.pid" \
        RABBITMQ_ALLOW_INPUT=1 \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}" \
        "$@"
}

# until_listening PORT PROCESS: wait for a server, for two minutes at most and not once it has ended.
until_listening() {
    local left=240
    until (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
        kill -0 "$2" 2>/dev/null && ((left--)) || {
            tail -n 30 "$log" >&2 || :
            fail "nothing listens at port $1"
        }
        sleep 0.5
    done
}

# start_broker LOG [PLUGIN…]: start the node; further lines of rabbitmq.conf come from standard input.
start_broker() {
    log=$work/$1
    {
        say "listeners.tcp.1 = 127.0.0.1:$port" "log.file = false" "log.console = true"
        cat
    } >"$root$home/rabbitmq.conf"
    say "[$(IFS=,; echo "${*:2}")]." >"$root$home/enabled_plugins"
    if [ -z "$epmd" ]; then  # else the node would start one that nobody stops
        (inside epmd -port "$epmd_port" -address 127.0.0.1) >"$log" 2>&1 &
        epmd=$!
        until_listening "$epmd_port" "$epmd"
    fi
    # Told that it may have input, the start script becomes the Erlang VM by exec; -noinput takes the input away again.
    (inside /usr/lib/rabbitmq/bin/rabbitmq-server -noinput) </dev/null >"$log" 2>&1 &
    node=$!
    until_listening "$port" "$node"
}

stop_broker() {
    kill -TERM "$node"
    wait "$node" || :
    node=''
}

# client [FILE ARGUMENT…]: run a Python program, or that on standard input, with what was installed, and frames.py.
client() {
    PYTHONPATH=$checkout/findings PYTHONDONTWRITEBYTECODE=1 timeout --foreground 180 "$work/venv/bin/python" "${@:--}"
}
