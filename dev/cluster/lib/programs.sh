# shellcheck shell=bash
# Names of what can be killed and started one by one: a program (etcd,
# apiserver, controller-manager, scheduler, forward, containerdN, kubeletN,
# proxyN) or a whole node (nodeN). It must never name what up did not start.

program_names() {
  local n
  printf '%s\n' "${control_programs[@]}"
  for ((n = 1; n <= $(running_nodes); n++)); do
    printf '%s\n' "containerd$n" "kubelet$n" "proxy$n" "node$n"
  done
}

need_program() {
  local names
  names=$(program_names)
  grep -qx -- "$1" <<<"$names" || die "no '$1'; there are: ${names//$'\n'/ }"
}

record_of() {
  if [[ $1 == node* ]]; then echo "$state/places/$1"; else echo "$state/pids/$1"; fi
}

# kill_program NAME SIGNAL
kill_program() {
  local record
  record=$(record_of "$1")
  alive "$record" || die "$1 does not run"
  case $1/$2 in
  node*/KILL) stop_node "${1#node}" ;;
  node*) die "a node can only be killed" ;;
  *)
    kill -s "$2" "$(recorded_pid "$record")"
    [[ $2 != KILL ]] || await 20 dead "$record" || die "$1 does not end"
    ;;
  esac
}

# start_program NAME: as up started it; nothing when it runs.
start_program() {
  local name=$1 n=${1##*[!0-9]}
  ! alive "$(record_of "$name")" || return 0
  case $name in
  containerd*) start_containerd "$n" && expect "$name" 60 containerd_ready "$n" ;;
  kubelet*) start_kubelet "$n" && expect "$name" 60 kubelet_ready "$n" ;;
  proxy*) start_proxy "$n" ;;
  node*)
    boot_node "$n" "$(running_nodes)"
    expect "containerd$n" 60 containerd_ready "$n"
    start_node_programs "$n"
    expect "kubelet$n" 60 kubelet_ready "$n"
    await 90 node_ready "$n" || fail "kubelet$n"
    ;;
  apiserver) start_apiserver && expect apiserver 60 api_ready ;;
  *) "start_$name" ;;
  esac
}

kubelet_ready() {
  in_node "$1" bash -c 'exec 3<>/dev/tcp/127.0.0.1/10248 && printf "GET /healthz HTTP/1.0\r\n\r\n" >&3 && grep -q "^ok" <&3'
}

# Ready, and said so by the kubelet that runs now: a node that has just lost
# its power still reads Ready for a while.
node_ready() {
  local heard began
  read -r heard < <(kubectl --request-timeout=5s get node "node$1" \
    -o jsonpath='{.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].lastHeartbeatTime}{"\n"}' 2>/dev/null) || return 1
  began=$(stat -c %Y "$state/pids/kubelet$1")
  [[ $heard == "True "* && $(date -d "${heard#True }" +%s) -ge $began ]]
}
