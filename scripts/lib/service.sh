# shellcheck shell=bash
#
# The common part of scripts/rabbitmq, scripts/postgresql and scripts/redis: one throw-away service per checkout.
# Runs on Linux (flock, setsid, timeout).
#
# The script that includes this file sets
#   service         its name and that of its state folder        product       the name people know it by
#   url_variable    the environment variable with a URL to use   default_port  where such a URL names no port
#   package         the Debian package with the server           image         the container image
#   container_port  the server's port inside the container       port_count    how many ports a local server needs
# and defines
#   add_container_arguments  appends to container_options (before the image) and container_command (after it)
#   installed                true if the server's programs are on this machine
#   start_server             starts them with `launch server ...`, on the ports from `recall port` onwards
#   server_command_line      text which only our server's process has in its command line
#   stop_server              stops what start_server started, and what is left of it after a crash
#   ready                    true once clients are served
#   print_url                the URL for clients
#   before_install           (optional) `add_file`s to have in place while the package is installed
#   remove_data              (optional) removes what start_server put outside of the state folder

set -euo pipefail
: "${service:?}" "${product:?}" "${url_variable:?}" "${default_port:?}" "${package:?}" "${image:?}"
: "${container_port:?}" "${port_count:?}"

start_deadline=60
stop_deadline=30

say() { printf '%s: %s\n' "$service" "$*" >&2; }
fail() { say "$*"; exit 1; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
services=$(realpath -m -- "${LIMETASK_SERVICES_DIR:-$root/.services}") ||
  fail "this script runs on Linux; elsewhere set $url_variable to a $product of yours"
state=$services/$service
log=$state/log
# Of the folder, so that several checkouts on one machine stay apart.
name=limetask-$service-$(printf %s "$state" | cksum | cut -d' ' -f1)
given_url=${!url_variable:-}
keep=

# --- what is remembered between calls: one small file per fact ---

remember() { printf '%s\n' "$2" >"$state/$1"; }
recall() { cat "$state/$1" 2>/dev/null || true; }
forget() { rm -f "${@/#/$state/}"; }

open_state() {
  mkdir -p "$state"
  chmod 700 "$state"
  # The default folder lies in a work tree, and must not turn up in a commit.
  [ -n "${LIMETASK_SERVICES_DIR:-}" ] || [ -e "$services/.gitignore" ] || echo '*' >"$services/.gitignore"
}

require_access() {
  [ ! -d "$state" ] || [ -w "$state" ] || fail "$state belongs to $(stat -c %U "$state"): only they can do this"
}

lock() {  # one `up` or `down` at a time; released when this script ends
  # Beside the state folder and never removed: a lock file that is deleted no longer keeps anybody out.
  { mkdir -p "$services" && exec 9>"$services/$service.lock"; } || fail "cannot write to $services"
  flock -n 9 && return
  say "waiting for another up or down of $state"
  flock -w 900 9 || fail "another up or down of $state has not ended for 15 minutes"
}

# --- ports and URLs ---

# shellcheck disable=SC2016  # expanded by the inner shell
tcp_answers() { timeout 3 bash -c 'exec 3<>"/dev/tcp/$1/$2"' - "$1" "$2" 2>/dev/null; }

url_host_and_port() {
  local address=${1#*://}
  address=${address%%[/?#]*}
  address=${address##*@}
  case $address in
    \[*\]:*) echo "$(tr -d '[]' <<<"${address%:*}") ${address##*:}" ;;
    \[*\]) echo "$(tr -d '[]' <<<"$address") $default_port" ;;
    *:*) echo "${address%:*} ${address##*:}" ;;
    *) echo "$address $default_port" ;;
  esac
}

require_given_url() {
  local host port
  [[ $given_url == *://* ]] || fail "$url_variable is not a URL"
  read -r host port < <(url_host_and_port "$given_url")
  [ -n "$port" ] || return 0  # no host: a socket file, which the client looks for by rules of its own
  tcp_answers "$host" "$port" || fail "$url_variable names $host:$port, where nothing answers." \
    "Start $product there, or unset $url_variable to have one started here."
}

ports_free() {  # ports_free FIRST
  local port
  for ((port = $1; port < $1 + port_count; port++)); do
    ! tcp_answers 127.0.0.1 "$port" || return 1
  done
}

# A killed process may be gone, and its other threads hold its ports for a moment longer.
ports_free_soon() {  # ports_free_soon FIRST
  local tries
  for ((tries = 0; tries < 50; tries++)); do
    if ports_free "$1"; then return; fi
    sleep 0.1
  done
  return 1
}

choose_ports() {  # the ports of last time if they are free: clients of a restarted service find it again
  local port
  port=$(recall port)
  if [ -n "$port" ] && ports_free_soon "$port"; then return; fi
  until
    # Under the range from which the kernel takes ports for outgoing connections.
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    ports_free "$port"
  do :; done
  remember port "$port"
}

service_port() {
  local published
  if [ "$(recall kind)" = container ]; then
    published=$(engine port "$name" "$container_port/tcp")
    published=${published%%$'\n'*}
    echo "${published##*:}"
  else
    recall port
  fi
}

# --- processes ---

# In a subshell, before something that stays: whoever reads our output waits for its end if it keeps a file of ours
# open, and the lock stays taken.
close_inherited_files() {
  local fd
  for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    [ "$fd" -le 2 ] || exec {fd}>&-
  done
}

launch() {  # launch NAME COMMAND...: in a session of its own, its process id in NAME.pid, its output in the log
  (
    close_inherited_files
    exec setsid "${@:2}"
  ) </dev/null >>"$log" 2>&1 &
  remember "$1.pid" $!
  wait_until_replaced $!
}

# Until then it has our own command line, and would be taken for a process that is none of ours.
wait_until_replaced() {
  while [ "$(command_line "$1" || true)" = "$(command_line $$)" ]; do sleep 0.02; done
}

# A process that is just being replaced by the next program (`exec`) lives and shows an empty command line for a moment,
# and a server's start is a chain of those. One that has ended and was not waited for (Z) shows an empty one for ever.
command_line() {  # command_line PID
  local line='' state tries
  for ((tries = 0; tries < 200; tries++)); do
    line=$(tr '\0' ' ' <"/proc/$1/cmdline") || return 1
    [ -z "$line" ] || break
    state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat") && [ "$state" != Z ] || return 1
    sleep 0.01
  done
  printf '%s\n' "$line"
} 2>/dev/null

# A process id alone proves nothing: after a crash or a reboot it may be somebody else's.
is_process() {  # is_process PID TEXT: it lives, and has TEXT in its command line
  [[ -n $1 && "$(command_line "$1" || true)" == *"$2"* ]]
}

stop_process() {  # stop_process PID TEXT SIGNAL
  local end=$((SECONDS + stop_deadline))
  is_process "$1" "$2" || return 0
  kill -s "$3" "$1" || true
  kill -s CONT "$1" || true  # a stopped process would not see the signal
  while is_process "$1" "$2"; do
    if ((SECONDS >= end)); then
      say "process $1 has not ended after $stop_deadline s and is killed"
      kill -s KILL "$1" || true
      end=$((SECONDS + stop_deadline))
    fi
    sleep 0.1
  done
}

server_running() { is_process "$(recall server.pid)" "$(server_command_line)"; }

# --- containers ---

engine() (
  close_inherited_files
  exec "$(recall engine)" "$@"
)

engine_answers() (
  close_inherited_files
  exec timeout 10 "$1" info
) >/dev/null 2>&1

find_engine() {  # the first container engine that answers
  local candidate
  for candidate in docker podman; do
    if command -v "$candidate" >/dev/null && engine_answers "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

container_running() { [ "$(engine container inspect --format '{{.State.Running}}' "$name" 2>/dev/null)" = true ]; }

require_engine() {
  engine_answers "$(recall engine)" ||
    fail "$(recall engine), which has the container $name, does not answer. Start it and try again;" \
    "if it is gone for good, remove $state."
}

have_image() {
  engine image inspect "$image" >/dev/null 2>&1 && return
  say "pulling the image $image"
  engine pull --quiet "$image" >>"$log" 2>&1
}

run_container() {
  local container_options=() container_command=()
  add_container_arguments
  engine run --detach --name "$name" --label "limetask.service=$service" \
    --publish "127.0.0.1::$container_port" "${container_options[@]}" "$image" "${container_command[@]}" >>"$log" 2>&1
}

remove_container() { engine rm --force --volumes "$name" >/dev/null; }

start_container() {  # start_container ENGINE
  remember engine "$1"
  remember kind container
  say "starting a container from $image with $1"
  remove_container 2>/dev/null || true  # ours, from a state folder that was deleted
  if ! have_image || ! run_container; then
    say "$1 could not do that: $(tail -n 1 "$log")"
    remove_container 2>/dev/null || true
    forget kind engine
    return 1
  fi
}

# --- installing ---

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

add_file() {  # add_file FILE MODE LINE...: for the time of the installation, unless there is one
  [ ! -e "$1" ] || return 0
  added+=("$1")
  mkdir -p "$(dirname "$1")"
  printf '%s\n' "${@:3}" >"$1"
  chmod "$2" "$1"
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive \
    apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$package" 8>&- 9>&-
}

install_package() (
  added=()
  exec 8</var/lib/dpkg && flock 8  # another script's installation adds and removes the same files
  trap 'rm -f "${added[@]}"' EXIT
  say "installing the package $package (details in $state/install.log)"
  # The package's own service must not start.
  add_file /usr/sbin/policy-rc.d 755 '#!/bin/sh' 'exit 101'
  if declare -F before_install >/dev/null; then before_install; fi
  # The package lists may be missing or too old to install from.
  { apt_install || { apt-get update && apt_install; }; } >"$state/install.log" 2>&1 </dev/null
)

# --- the verbs ---

running() {
  case $(recall kind) in
    container) container_running ;;
    server) server_running ;;
    *) return 1 ;;
  esac
}

start_installed() {
  remember kind server
  stop_server
  choose_ports
  say "starting $product on port $(recall port)"
  start_server
}

start() {
  local candidate
  # What was started before is started again, on its data.
  case $(recall kind) in
    container)
      require_engine
      say "starting the container $name again"
      if engine start "$name" >>"$log" 2>&1; then return; fi
      ;;
    server)
      if installed; then
        start_installed
        return
      fi
      ;;
  esac
  if candidate=$(find_engine) && start_container "$candidate"; then return; fi
  if ! installed && can_install; then
    install_package || say "the installation failed: $(tail -n 1 "$state/install.log")"
  fi
  installed || fail "no $product here. Three ways out: set $url_variable to the URL of one that runs;" \
    "start Docker or Podman; or install $product (on Debian and Ubuntu the package $package)."
  start_installed
}

wait_until_ready() {
  local end=$((SECONDS + start_deadline))
  until ready; do
    running && ((SECONDS < end)) || return 1
    sleep 0.2
  done
}

fail_with_log() {
  local all=$log
  say "$1. The end of its log:"
  if [ "$(recall kind)" = container ]; then
    all="$(recall engine) logs $name"
    engine logs --tail 15 "$name" >&2 || true
  else
    tail -n 15 "$log" >&2 || true
  fi
  fail "all of it: $all. Data that cannot be used any more is removed by \`down\`."
}

stop_after_failed_start() {
  local reason="$product ended while it was starting"
  if running; then reason="$product was not ready after $start_deadline s and is stopped"; fi
  if [ "$(recall kind)" = container ]; then engine stop "$name" >/dev/null; else stop_server; fi
  fail_with_log "$reason"
}

up() {
  if [ -n "$given_url" ]; then
    require_given_url
    printf '%s\n' "$given_url"
    return
  fi
  require_access
  lock
  open_state
  if running; then
    wait_until_ready || fail_with_log "$product runs but does not answer"
  else
    forget url
    start >&2
    wait_until_ready || stop_after_failed_start
  fi
  remember url "$(print_url)"
  recall url
}

url() {
  if [ -n "$given_url" ]; then
    require_given_url
    printf '%s\n' "$given_url"
    return
  fi
  require_access
  if ! running || [ -z "$(recall url)" ]; then fail "none is up here; start one with: $0 up"; fi
  recall url
}

down() {
  require_access
  if [ ! -d "$state" ]; then
    say "none was started here"
    return
  fi
  lock
  case $(recall kind) in
    container)
      require_engine
      if [ -n "$keep" ]; then engine stop "$name" >/dev/null; else remove_container; fi
      ;;
    server) stop_server ;;
  esac
  if [ -n "$keep" ]; then
    say "stopped; the data is kept for the next up"
  else
    if declare -F remove_data >/dev/null; then remove_data; fi
    rm -rf "$state"
    say "stopped, and its data removed"
  fi
}

usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }

wrong_usage() {
  say "$1"
  usage >&2
  exit 2
}

run_verb() {
  local verb=${1:-help}
  [ $# = 0 ] || shift
  case $verb in
    up | url) ;;
    down) if [ "${1:-}" = --keep ]; then keep=yes; shift; fi ;;
    help | -h | --help) set --; verb=usage ;;
    *) wrong_usage "unknown verb '$verb'" ;;
  esac
  [ $# = 0 ] || wrong_usage "unknown argument '$1'"
  "$verb"
}
