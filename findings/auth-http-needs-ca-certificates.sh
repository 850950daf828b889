#!/usr/bin/env bash
# RabbitMQ's HTTP auth backend refuses everybody on a host without ca-certificates, even with plain http:// URLs.
#
# Needs: root, Debian 12 or later with python3-venv, network, 0.6 GB, 2 minutes. Installs debootstrap if it is missing.
#
# Software: RabbitMQ 4.0.5 of Debian trixie with its plugin rabbitmq_auth_backend_http and Erlang 27.3, pika 1.4.4.
# Valid input: four http:// URLs in rabbitmq.conf, and a login with a user name and a password.
#
# Seen: with Debian's package ca-certificates the backend is asked and the client gets in. Without it, and nothing else
# changed, the client is refused, the HTTP server gets no question, and the broker's log says
#
#   [error] … PLAIN login refused: User 'anybody' authentication failed with internal error. Enable debug logs to see
#   the real error.
#
# which in the debug log is no_cacerts_found: Erlang's HTTP client loads the operating system's certificates for its
# default TLS options whatever the scheme is, and fails when there are none.
set -euo pipefail
. "$(dirname "$0")/rabbitmq.sh"

install_broker trixie 4.0.5 pika==1.4.4

# A backend that lets everybody do everything, and prints the questions.
cat >"$work/backend.py" <<'PYTHON'
import http.server
import os


class Backend(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        print(self.path, flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"allow")

    def log_message(self, *arguments):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["OTHER_PORT"])), Backend).serve_forever()
PYTHON
python3 "$work/backend.py" >"$work/questions" &
until_listening "$other_port" $!

cat >"$work/conf" <<CONF
auth_backends.1 = rabbit_auth_backend_http
auth_http.http_method = post
auth_http.user_path = http://127.0.0.1:$other_port/user
auth_http.vhost_path = http://127.0.0.1:$other_port/vhost
auth_http.resource_path = http://127.0.0.1:$other_port/resource
auth_http.topic_path = http://127.0.0.1:$other_port/topic
log.console.level = debug
CONF

log_in() {
    client <<'PYTHON'
import os

import pika

credentials = pika.PlainCredentials("anybody", "any password")
try:
    pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(os.environ["PORT"]), credentials=credentials))
    print("gets in")
except pika.exceptions.ProbableAuthenticationError:
    print("is refused")
PYTHON
}

# try_with DESCRIPTION LOG CLIENT QUESTIONS: what is to be seen; then the log is there to be looked at.
try_with() {
    local client questions
    : >"$work/questions"
    start_broker "$2" rabbitmq_auth_backend_http <"$work/conf"
    client=$(log_in)
    questions=$(paste -sd ' ' "$work/questions")
    stop_broker
    say "$1: the client $client; questions to the backend: ${questions:-none}"
    [ "$client" = "$3" ] || fail "the client $3 before"
    [ "$questions" = "$4" ] || fail "the questions were ${4:-none} before"
}

try_with "with ca-certificates" with.log "gets in" "/user /vhost"
chroot "$root" dpkg --purge ca-certificates >"$work/dpkg.log" 2>&1
try_with "without" without.log "is refused" ""

# sed takes the colours away.
sed 's/\x1b\[[0-9;]*m//g' "$work/without.log" >"$work/log"
say "the broker's log of that:"
grep -E '\[(warning|error)\].*refused' "$work/log" || fail "the log has no such line"
grep -q "authentication failed with internal error" "$work/log" || fail "it said 'internal error' before"
grep -E '\[debug\].*no_cacerts_found' "$work/log" || fail "the debug log said 'no_cacerts_found' before"
! sed '/\[debug\]/d' "$work/log" | grep -q cacerts || fail "only the debug log named the certificates before"
say "As seen before."
