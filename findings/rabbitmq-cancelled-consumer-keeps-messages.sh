#!/usr/bin/env bash
# Version:      RabbitMQ 3.10.8 (Debian 12), three nodes, a quorum queue; pika 1.4.4 as the client. Read, not run: in a
#               later source rabbit_fifo.erl, `{down, Pid, noconnection}`, still returns only what consumers with the
#               status `up` hold; a newer one (`consumer_down_timeout`) returns after 10 s what any of them holds.
# Good guess:   when a node is lost, the queue gives others what the consumers of that node's connections had not acked.
# What happens: that is so for a consumer that is consuming. What a consumer has not acked that was cancelled before
#               (`basic.cancel`, as a worker sends it that stops in good order and lets its tasks end) stays unacked:
#               nobody gets it, and there is no connection any more that holds it. It stays so when the node is back,
#               until the queue has another leader, which looks after all consumers anew. (Not checked below: the leader
#               may change by itself when the node comes back.)
# So:           a message is safe with a consumer that goes on; when a lost node is back, let the queue's leader change,
#               as by a restart of RabbitMQ on the leader's node.
#
# It needs Erlang (`erl`), apt-get of Debian 12, and about a minute. Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
cd "$folder"
node_count=3
# For each node one for AMQP and one for Erlang's distribution, and one for epmd.
read -ra ports < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(7)]
print(*(one.getsockname()[1] for one in held))')
export ERL_EPMD_PORT=${ports[6]} ERL_EPMD_ADDRESS=127.0.0.1 HOME=$folder

stop() {
  for number in $(seq $node_count); do kill -9 "$(cat "$folder/$number.pid" 2>/dev/null)" 2>/dev/null || true; done
  sleep 1
  epmd -port "$ERL_EPMD_PORT" -kill >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap stop EXIT

apt-get download --quiet rabbitmq-server=3.10.8-1.1+deb12u1 >apt.log 2>&1 || { cat apt.log >&2; exit 2; }
dpkg --extract rabbitmq-server_*.deb package
sbin=$folder/package/usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8/sbin
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pika==1.4.4
printf 'cluster_formation.peer_discovery_backend = classic_config\ncluster_formation.classic_config.nodes.1 = n1@localhost\n' \
  >rabbitmq.conf
echo '[].' >plugins

rabbitmq() { # PROGRAM NUMBER ARGUMENT...
  local program=$1 number=$2
  shift 2
  RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_NODENAME="n$number@localhost" RABBITMQ_NODE_PORT=${ports[number - 1]} \
    RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_DIST_PORT=${ports[number + 2]} RABBITMQ_MNESIA_BASE="$folder/data" \
    RABBITMQ_LOG_BASE="$folder/logs" RABBITMQ_LOGS=- RABBITMQ_CONFIG_FILE="$folder/rabbitmq.conf" \
    RABBITMQ_ENABLED_PLUGINS_FILE="$folder/plugins" RABBITMQ_PID_FILE="$folder/$number.pid" "$sbin/$program" "$@"
}

start() { # NUMBER
  rabbitmq rabbitmq-server "$1" >>"$1.log" 2>&1 &
  for _ in $(seq 60); do
    rabbitmq rabbitmqctl "$1" await_startup --quiet --timeout 60 >/dev/null 2>&1 && return
    sleep 1
  done
  return 1
}

for number in $(seq $node_count); do start "$number"; done
rabbitmq rabbitmqctl 1 await_online_nodes --quiet $node_count

cat >client.py <<'PY'
"""Takes five of ten messages of each queue on node 3, cancels one of the two consumers, and waits."""
import sys

import pika

first, third = (pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(port))) for port in sys.argv[1:])
sending, taking = first.channel(), third.channel()
sending.confirm_delivery()
for queue in ("cancelled", "consuming"):
    sending.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    for _ in range(10):
        sending.basic_publish("", queue, b"")
taken = []
taking.basic_qos(prefetch_count=5)
for queue in ("cancelled", "consuming"):
    taking.basic_consume(queue, lambda _channel, method, _properties, _body: taken.append(method), consumer_tag=queue)
while len(taken) < 10:
    third.process_data_events(0.1)
taking.basic_cancel("cancelled")
sys.stdin.read()
PY

ready() { rabbitmq rabbitmqctl 1 list_queues --quiet --no-table-headers name messages_ready | sort | tr '\t\n' '  '; }

until_ready() { # TEXT
  for _ in $(seq 60); do
    ready | grep -q "$1" && return
    sleep 0.5
  done
  printf 'not within 60 looks: %s; seen: %s\n' "$1" "$(ready)" >&2
  return 1
}

mkfifo end
venv/bin/python client.py "${ports[0]}" "${ports[2]}" <end >client.log 2>&1 &
exec 9>end
until_ready 'cancelled 5 consuming 5'
seen="ready, of ten each, five taken: $(ready)"
kill -9 "$(cat 3.pid)"
until_ready 'consuming 10'
sleep 15
seen+="
node 3 is lost: $(ready)"
start 3
rabbitmq rabbitmqctl 1 await_online_nodes --quiet $node_count
# The queues were made at node 1, so that one leads them, unless the leader has changed already.
rabbitmq rabbitmqctl 1 stop_app --quiet
rabbitmq rabbitmqctl 1 start_app --quiet
until_ready 'consuming 10'
sleep 5
seen+="
it is back, and the leader has changed: $(ready)"
exec 9>&-

printf '%s\n' "$seen"
expected='ready, of ten each, five taken: cancelled 5 consuming 5 
node 3 is lost: cancelled 5 consuming 10 
it is back, and the leader has changed: cancelled 10 consuming 10 '
if [ "$seen" != "$expected" ]; then
  printf '\nthis is not what was seen before:\n%s\n' "$expected" >&2
  exit 1
fi
