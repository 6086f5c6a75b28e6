# shellcheck shell=bash
# A place is what a machine is in a real cluster: namespaces of its own for
# network, mounts, processes and host name, kept by one process, the first in
# it. When that process ends, the kernel ends all others in the place and takes
# back its mounts and interfaces: nothing here has a name that could be left
# over. The host's own network and mounts must never be changed.
#
# target/cluster/places/NAME   "PID START" of the keeper
# target/cluster/pids/NAME     "PID START" of a program, target/cluster/logs/NAME.log

# launch_raw RECORD LOG CMD...: CMD is a way into namespaces that ends in
# starting a child; that child is recorded, by its pid outside, as fork()
# answers with the pid in the namespace of the one who asks.
launch_raw() {
  local record=$1 log=$2 pid
  shift 2
  : >"$record.pid"
  (
    join_cgroup
    exec env -i HOME=/root LANG=C.UTF-8 PATH="${place_path:-/usr/sbin:/usr/bin:/sbin:/bin}" "$@"
  ) </dev/null >>"$log" 2>&1 3>"$record.pid" 8>&- 9>&- || die "cannot start ${record##*/}; see $log"
  pid=$(<"$record.pid")
  rm -f "$record.pid"
  echo "$pid $(started "$pid")" >"$record" || die "${record##*/} ended at once: $(tail -n 3 "$log")"
}

# As the last part of CMD: starts what follows as a child in a session of its
# own, and tells its pid. setsid becomes the program, so the pid stays.
start_child=(bash -c 'setsid "$@" 3>&- & echo $! >&3' start)

# start_place NAME ROLE: ROLE is node or control; place-init prepares inside.
start_place() {
  local name=$1 role=$2 dir=$state/$1
  mkdir -p "$state/places" "$state/pids" "$state/logs" "$dir"
  rm -f "$dir/ready"
  launch_raw "$state/places/$name" "$state/logs/$name.log" \
    unshare --mount --net --pid --uts --propagation private \
    "${start_child[@]}" bash "$cluster_dir/lib/place-init" "$role" "$name" "$dir" "$bin_dir"
  await 15 place_ready "$name" || fail "$name"
}

place_ready() {
  alive "$state/places/$1" || die "$1 ended while it was prepared: $(tail -n 5 "$state/logs/$1.log")"
  [[ -e $state/$1/ready ]]
}

stop_place() {
  local record=$state/places/$1
  if alive "$record"; then
    kill -KILL "$(recorded_pid "$record")" 2>/dev/null || true
    # Not gone before all in it are gone.
    await 20 dead "$record" || die "$1 does not end"
  fi
}

dead() { ! alive "$1"; }

# enter_place NAME CMD...: becomes CMD inside.
enter_place() {
  local name=$1
  shift
  exec nsenter --target "$(recorded_pid "$state/places/$name")" --mount --net --pid --uts "$@"
}

# launch PLACE NAME CMD...: a program that stays. PLACE host is the host.
launch() {
  local place=$1 name=$2 way=()
  shift 2
  if [[ $place != host ]]; then
    way=(nsenter --target "$(recorded_pid "$state/places/$place")" --mount --net --pid --uts --no-fork --)
  fi
  launch_raw "$state/pids/$name" "$state/logs/$name.log" "${way[@]}" "${start_child[@]}" "$@"
}

# in_net NAME CMD...: the host's files, the place's network; for ip and the like.
in_net() {
  local name=$1
  shift
  nsenter --target "$(recorded_pid "$state/places/$name")" --net "$@"
}

# fail NAME: says which program did not come up, with the end of its log.
fail() {
  local log=$state/logs/$1.log
  say "cluster: $1 did not come up; the end of $log:"
  tail -n 25 "$log" >&2 || true
  exit 1
}

# expect NAME SECONDS CMD...: waits for CMD to succeed while program NAME runs.
expect() {
  local name=$1 seconds=$2
  shift 2
  await "$seconds" run_or_dead "$name" "$@" || fail "$name"
  alive "$state/pids/$name" || fail "$name"
}

# Succeeds when CMD does, and also when there is nothing left to wait for.
run_or_dead() {
  local name=$1
  shift
  "$@" >/dev/null 2>&1 || dead "$state/pids/$name"
}
