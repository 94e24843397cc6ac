# Sourced by examples/express/run, examples/flask/run and tests/clients/run: three nodes with a door for clients of Redis,
# the programs that use them, and a client over HTTP. Ends what it started and removes what it left, whatever happens.
# It takes the command that $ANNULUS names, or builds it.
export RUST_BACKTRACE=0

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
dir=$(mktemp -d "${TMPDIR:-/tmp}/annulus-redis.XXXXXX")
shm=/dev/shm
[ -d "$shm" ] && [ -w "$shm" ] || shm=$dir
cluster=redis-$$
declare -A pid addr redis url

clean_up() {
  status=$?
  trap - EXIT INT TERM
  if [ "$status" -ne 0 ]; then
    echo "FAILED (exit $status). What they said last:" >&2
    for log in "$dir"/*.log; do [ -s "$log" ] && { echo "--- ${log##*/}"; tail -n 15 "$log"; } >&2; done
  fi
  for name in "${!pid[@]}"; do kill "${pid[$name]}" 2>/dev/null || true; done
  for name in "${!pid[@]}"; do wait "${pid[$name]}" 2>/dev/null || true; done
  rm -f "$shm"/annulus-"$cluster"-*
  rm -rf "$dir"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '%-26s %s\n' "$1" "$2"; }
now() { date +%s%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", (b - a) / 1e9 }'; }

wait_for() { # wait_for WHAT COMMAND...: for at most 60 s
  local what=$1 tries=0; shift
  until "$@"; do
    tries=$((tries + 1))
    [ -z "${starting:-}" ] || kill -0 "$starting" || return 1
    if [ "$tries" -gt 1200 ]; then echo "timed out waiting for $what" >&2; return 1; fi
    sleep 0.05
  done
}

# ---- Nodes ----

annulus() { "$annulus" --cluster "$cluster" "$@"; }

build_annulus() {
  local t; t=$(now)
  annulus=${ANNULUS:-$target/debug/annulus}
  [ -n "${ANNULUS:-}" ] || (cd "$root" && cargo build --quiet --locked -p annulus)
  say "annulus" "$(since "$t")"
}

start_node() { # start_node NODE [SEED]: where it was before, if it was
  local node=$1; shift
  local seeds=() seed
  for seed in "$@"; do seeds+=(--seed "$seed"); done
  mkdir -p "$dir/$node"
  : > "$dir/$node.ready"
  "$annulus" --cluster "$cluster" node --config "$dir/annulus.toml" --name "$node" --data-dir "$dir/$node" --shm-dir "$shm" --socket "$dir/$node.sock" \
    --listen "${addr[$node]:-127.0.0.1:0}" --redis-listen "${redis[$node]:-127.0.0.1:0}" "${seeds[@]}" --print-ready > "$dir/$node.ready" 2>> "$dir/$node.log" &
  pid[$node]=$!
  starting=${pid[$node]} wait_for "$node to serve" test -s "$dir/$node.ready"
  addr[$node]=$(sed -E 's/.*"addr":"([^"]+)".*/\1/' "$dir/$node.ready")
  redis[$node]=$(sed -E 's/.*"redis":\["([^"]+)".*/\1/' "$dir/$node.ready")
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

start_cluster() { # start_cluster [LINE]...: with these lines at the top of their configuration
  local t; t=$(now)
  printf '%s\n' "$@" > "$dir/annulus.toml"
  # Who has been answered through one node sees it through any other at once, and not up to 400 ms later.
  printf '[[table]]\nname = "sessions"\nread = "home"\n' >> "$dir/annulus.toml"
  start_node n1
  start_node n2 "${addr[n1]}"
  start_node n3 "${addr[n1]}"
  wait_for "three nodes to agree" agree 3 n1 n2 n3
  say "three nodes agree" "$(since "$t"): clients of Redis go to ${redis[n1]}, ${redis[n2]}, ${redis[n3]}"
}

kill_node() {
  # In one group, so that the shell does not report the death on its own.
  { kill -9 "${pid[$1]}"; wait "${pid[$1]}" || true; } 2>/dev/null
  unset "pid[$1]"
}

# ---- What is installed, below the target directory and never in the tree ----

npm_install() { # npm_install DIRECTORY NAME: what its package-lock.json says, beside a copy of its programs; in $installed
  local t; t=$(now)
  installed=$target/clients/$2
  mkdir -p "$installed"
  cp "$1"/package.json "$1"/package-lock.json "$1"/*.mjs "$installed"
  if ! cmp -s "$installed/package-lock.json" "$installed/node_modules/.made-from"; then
    (cd "$installed" && npm ci --silent --no-audit --no-fund)
    cp "$installed/package-lock.json" "$installed/node_modules/.made-from"
  fi
  say "npm packages" "$(since "$t")"
}

pip_install() { # pip_install DIRECTORY NAME: what its requirements.txt says; the interpreter in $python
  local t place; t=$(now)
  # One for all: the same versions are pinned in each.
  place=$target/clients/python
  python=$place/bin/python
  export PYTHONPYCACHEPREFIX=$target/clients/pycache
  if ! cmp -s "$1/requirements.txt" "$place/.made-from-$2"; then
    [ -x "$python" ] && "$python" -m pip --version > /dev/null 2>&1 || python3 -m venv --clear "$place"
    "$python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --requirement "$1/requirements.txt"
    cp "$1/requirements.txt" "$place/.made-from-$2"
  fi
  say "Python packages" "$(since "$t")"
}

# ---- Programs that serve HTTP, and a client of theirs with a jar for its cookies ----

start_app() { # start_app NAME COMMAND...: it prints where it listens
  local name=$1; shift
  : > "$dir/$name.ready"
  "$@" > "$dir/$name.ready" 2>> "$dir/$name.log" &
  pid[$name]=$!
  starting=${pid[$name]} wait_for "$name to serve" grep -q '^http://' "$dir/$name.ready"
  url[$name]=$(grep -m 1 '^http://' "$dir/$name.ready")
}

http() { # http JAR METHOD URL: what is answered, and its status
  curl --silent --show-error --max-time 10 --cookie "$dir/$1.jar" --cookie-jar "$dir/$1.jar" --request "$2" --write-out ' (%{http_code})' "$3"
}

expect() { # expect WHAT ANSWER COMMAND...
  local what=$1 wanted=$2 got; shift 2
  got=$("$@") || { echo "$what: $* failed, and said: $got" >&2; return 1; }
  if [ "$got" != "$wanted" ]; then echo "$what: expected $wanted, got $got" >&2; return 1; fi
  say "$what" "$got"
}

# How many late saves a node has refused.
late_saves() { # late_saves NODE
  annulus --node "${addr[$1]}" metrics | sed -n 's/^annulus_redis_late_saves_total //p'
}

is_answered() { # is_answered ANSWER COMMAND...
  local wanted=$1; shift
  [ "$("$@" 2>/dev/null)" = "$wanted" ]
}
