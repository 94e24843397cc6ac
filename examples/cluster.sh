#!/usr/bin/env bash
# Three nodes on this machine: sessions stored through one and read through another and out of shared memory, a node
# killed and restarted, sessions ended for good. Every byte is compared; exits non-zero if anything is lost, stale or
# revived. Cleans up whatever happens; --keep leaves the cluster running and says how to use it.
set -euo pipefail
export RUST_BACKTRACE=0

keep=no
case "${1:-}" in
  --keep) keep=yes ;;
  '') ;;
  *) echo "usage: $0 [--keep]" >&2; exit 2 ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The programs: those that are built here, or those that lie beside $ANNULUS.
bin=${CARGO_TARGET_DIR:-$root/target}/debug
[ -z "${ANNULUS:-}" ] || bin=$(dirname "$ANNULUS")
dir=$(mktemp -d "${TMPDIR:-/tmp}/annulus-cluster.XXXXXX")
shm=/dev/shm
[ -d "$shm" ] && [ -w "$shm" ] || shm=$dir
declare -A pid addr

clean_up() {
  status=$?
  trap - EXIT INT TERM
  if [ "$status" -ne 0 ]; then
    echo "FAILED (exit $status). What the nodes said last:" >&2
    for log in "$dir"/*.log; do [ -e "$log" ] && { echo "--- ${log##*/}"; tail -n 15 "$log"; } >&2; done
  fi
  for node in "${!pid[@]}"; do kill "${pid[$node]}" 2>/dev/null || true; done
  for node in "${!pid[@]}"; do wait "${pid[$node]}" 2>/dev/null || true; done
  rm -f "$shm"/annulus-"$cluster"-*
  rm -rf "$dir"
  exit "$status"
}
cluster=example-$$
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

annulus() { "$bin/annulus" --cluster "$cluster" "$@"; }
load() { local what=$1; shift; "$bin/annulus-load" "$what" --cluster "$cluster" "$@"; }
say() { printf '%-26s %s\n' "$1" "$2"; }
now() { date +%s%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", (b - a) / 1e9 }'; }

start_node() { # start_node NODE LISTEN SEED...
  local node=$1 listen=$2; shift 2
  local seeds=() seed
  for seed in "$@"; do seeds+=(--seed "$seed"); done
  mkdir -p "$dir/$node"
  : > "$dir/$node.ready"
  "$bin/annulus" --cluster "$cluster" node --config "$dir/cluster.toml" --name "$node" --data-dir "$dir/$node" --shm-dir "$shm" --socket "$dir/$node.sock" \
    --listen "$listen" "${seeds[@]}" --print-ready > "$dir/$node.ready" 2>> "$dir/$node.log" &
  pid[$node]=$!
  starting=${pid[$node]} wait_for "$node to serve" test -s "$dir/$node.ready"
  addr[$node]=$(sed -E 's/.*"addr":"([^"]+)".*/\1/' "$dir/$node.ready")
}

wait_for() { # wait_for WHAT COMMAND...: for at most 60 s
  local what=$1 tries=0; shift
  until "$@"; do
    tries=$((tries + 1))
    [ -z "${starting:-}" ] || kill -0 "$starting" || return 1
    if [ "$tries" -gt 600 ]; then echo "timed out waiting for $what" >&2; return 1; fi
    sleep 0.1
  done
}

# Every one of these nodes sees COUNT active members, agrees with all of them, and is in sync.
agree() { # agree COUNT NODE...
  local count=$1 node status; shift
  for node in "$@"; do
    status=$(annulus --node "${addr[$node]}" status --json 2>/dev/null) || return 1
    status=$(tr -d ' \n' <<< "$status")
    grep -q "\"active_members\":$count," <<< "$status" || return 1
    grep -q "\"agreeing_members\":$count," <<< "$status" || return 1
    grep -q '"slots_unsynced":0,' <<< "$status" || return 1
  done
}

# Some node has had a session go outward.
cooled() {
  local node
  for node in n1 n2 n3; do
    annulus --node "${addr[$node]}" status --json | grep -q '"sessions_cooled"' && return 0
  done
  return 1
}

cd "$root"
t=$(now)
[ -n "${ANNULUS:-}" ] || cargo build --quiet -p annulus -p annulus-examples
say "built" "$(since "$t")"

# Sessions, and baskets, which cool within seconds: to a ring further out that every node keeps in a file.
cat > "$dir/cluster.toml" <<TOML
[[table]]
name = "sessions"

[[table]]
name = "baskets"
half_life = "1s"

[[table.ring]]
name = "cold"
after = "3s"
storage = "disk"

[[table]]
name = "logins"
burn = 20
burn_half_life = "1s"
TOML

t=$(now)
start_node n1 127.0.0.1:0
start_node n2 127.0.0.1:0 "${addr[n1]}"
start_node n3 127.0.0.1:0 "${addr[n1]}"
wait_for "three nodes to agree" agree 3 n1 n2 n3
say "three nodes agree" "$(since "$t"): n1 ${addr[n1]}, n2 ${addr[n2]}, n3 ${addr[n3]}"

say "through n1" "$(load store --node "${addr[n1]}" --count 1000)"
say "through n3" "$(load read --node "${addr[n3]}" --count 1000)"
say "in another process" "$(load read-local --socket "$dir/n3.sock" --count 1000)"

t=$(now)
# In one group, so that the shell does not report the death on its own.
{ kill -9 "${pid[n2]}"; wait "${pid[n2]}" || true; } 2>/dev/null
say "n2 killed with -9" "while the others serve on:"
say "through n3" "$(load read --node "${addr[n3]}" --count 1000)"
say "through n1" "$(load store --node "${addr[n1]}" --from 1000 --count 200)"
say "through n1" "$(load update --node "${addr[n1]}" --from 0 --count 100)"

t=$(now)
start_node n2 "${addr[n2]}" "${addr[n1]}"
wait_for "n2 to be in sync" agree 3 n1 n2 n3
say "n2 is back and in sync" "$(since "$t")"
say "from n2's memory" "$(load read-local --socket "$dir/n2.sock" --from 1000 --count 200)"
say "from n2's memory" "$(load read-local --socket "$dir/n2.sock" --from 0 --count 100 --revision 1)"
say "from n2's memory" "$(load read-local --socket "$dir/n2.sock" --from 100 --count 900)"

say "through n2" "$(load end --node "${addr[n2]}" --from 0 --count 50)"
for node in n1 n2 n3; do
  say "on $node" "$(load ended --node "${addr[$node]}" --socket "$dir/$node.sock" --from 0 --count 50)"
done
for node in n1 n2 n3; do
  say "on $node" "$(load read --node "${addr[$node]}" --from 50 --count 50 --revision 1)"
  say "on $node" "$(load read --node "${addr[$node]}" --from 100 --count 1100)"
done
say "nothing lost" "1,150 sessions as written, 50 ended for good, on every node"

for number in 1 2 3 4 5 6; do
  annulus --node "${addr[n$((number % 3 + 1))]}" start "of-ada-$number" "here" --owner ada > /dev/null 2>&1
done
t=$(now)
annulus --node "${addr[n2]}" end --owner ada --except of-ada-1 --json | grep -q '"ended":5'
say "ada logs out elsewhere" "$(since "$t") until 5 of her 6 sessions had ended"
for node in n1 n2 n3; do
  annulus --node "${addr[$node]}" sessions --owner ada --json | grep -o '"birth"' | wc -l | grep -q '^1$'
  annulus --node "${addr[$node]}" get of-ada-1 | grep -q here
done

t=$(now)
annulus --table baskets --node "${addr[n1]}" start basket "two pears" > /dev/null 2>&1
wait_for "the basket to cool" cooled
annulus --table baskets --node "${addr[n1]}" explain basket | grep -q "ring 1"
say "a basket went outward" "$(since "$t") after it was used: every home says ring 1"
t=$(now)
[ "$(annulus --table baskets --node "${addr[n3]}" get basket)" = "two pears" ]
annulus --table baskets --node "${addr[n3]}" explain basket | grep -q "alive"
say "and came back" "$(since "$t"): read through n3, and alive at its homes again"

# Each command is a client of its own: one alone makes no suspect.
hammered() {
  local node code=0
  for node in n1 n2 n3; do
    annulus --table logins --node "${addr[$node]}" touch hammered > /dev/null 2>&1 || code=$?
  done
  [ "$code" = 8 ]
}
t=$(now)
annulus --table logins --node "${addr[n1]}" start hammered "ada" > /dev/null 2>&1
wait_for "a hammered session to be slowed down" hammered
say "a hammered session" "$(since "$t") until its users were told to slow down: $(annulus --table logins --node "${addr[n2]}" suspects list --json | grep -o '"left_ms":[0-9]*' | head -1 | tr -dc 0-9) ms to go"
t=$(now)
wait_for "it to cool" annulus --table logins --node "${addr[n3]}" get hammered > /dev/null 2>&1
say "is served again" "$(since "$t") later, by itself"

if [ "$keep" = yes ]; then
  trap - EXIT INT TERM
  disown -a
  cat <<TXT

The cluster is running. Try:
  $bin/annulus --cluster $cluster --node ${addr[n1]} status --all
  $bin/annulus --cluster $cluster --node ${addr[n1]} start my-key my-value
  $bin/annulus --cluster $cluster --node ${addr[n3]} explain my-key
  $bin/annulus --cluster $cluster --socket $dir/n2.sock get my-key --local
Stop it and remove what it left:
  kill ${pid[n1]} ${pid[n2]} ${pid[n3]}; rm -rf $dir $shm/annulus-$cluster-*
TXT
fi
