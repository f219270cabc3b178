#!/bin/sh
# RDMA with true verbs on this machine: senders and a receiver over Soft-RoCE, and everything that may go wrong.
#
#   guest.sh FLUXLINE FOLDER [CASE …]
#
# Runs as root, with a network interface that has an IPv4 address: that of NET, or the first. REAL names a scan with darks
# and flats (shared/data/ct-tooth), MINIMAL a program; cases that need what is not there say so. Every case leaves FOLDER/CASE.json (the run's summary)
# and FOLDER/CASE.log. Prints one line per case and "N passed, M failed"; ends with status 1 where one failed.
# What was stored is compared outside, by compare.py.
set -u
fluxline=$1
folder=$2
shift 2
mkdir -p "$folder"
passed=0
failed=0
port=18515

fail() { # words
  echo "    $*"
  bad=1
}

device() {
  [ -n "$(ls /sys/class/infiniband 2>/dev/null)" ] && return
  modprobe -a ib_uverbs rdma_cm rdma_ucm rdma_rxe
  rdma link add rxe0 type rxe netdev "$net"
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -e /dev/infiniband/rdma_cm ] && grep -q ACTIVE /sys/class/infiniband/*/ports/1/state && return
    sleep 0.5
  done
  echo "no RDMA device could be made" >&2
  exit 1
}

# The value of a number in a summary: the first of this name.
value() { # case name
  grep -o "\"$2\": *[0-9]*" "$folder/$1.json" | head -n 1 | grep -o '[0-9]*$' || echo 0
}

reported() { # case name
  grep -o "\"$2\":[0-9.]*" "$folder/$1.sent" | head -n 1 | sed 's/.*://' || echo 0
}

configure() { # case source-lines ring-lines
  cat >"$folder/$1.toml" <<END
[ring]
slots = ${slots:-32}
page_size = "2MiB"
$3
[[source]]
$2
[accelerator]
cache_dir = "$folder/cache"
[store]
path = "$folder/store/$1"
[feedback]
listen = "127.0.0.1:0"
END
  ${recipe:-powder} >>"$folder/$1.toml"
}

powder() {
  cat <<END
[recipe.powder]
technique = "diffraction"
operations = ["correct", "statistics"${curve-, \"azimuthal\"}]
[recipe.powder.correct]
END
  [ -z "${curve-x}" ] || printf '[recipe.powder.azimuthal]\nbins = 100\n'
}

tomography() {
  cat <<END
[recipe.ct]
technique = "tomography"
operations = ["correct", "backproject"]
[recipe.ct.backproject]
rotation_axis_px = 295.5
vertical = false
END
}

# A receiver in the background. Lines of the [[source]] and of the [ring] may be added.
receive() { # case source-lines ring-lines
  configure "$1" "kind = \"rdma\"
listen = \"$address:$port\"
token_file = \"$folder/token\"
connect_timeout_s = 150.0
$2" "$3"
  # It ends by itself: connect_timeout_s and sender_timeout_s bound it. Programs start slowly under emulation.
  "$fluxline" run --once --json "$folder/$1.toml" >"$folder/$1.json" 2>"$folder/$1.log" &
  receiver=$!
}

send() { # case arguments; `scene` names other frames than the usual ones
  name=$1
  shift
  timeout "${patience:-300}" "$fluxline" emulate --rdma "$address:$port" --simulate "${scene:-$folder/frames.toml}" --token-file "$folder/token" \
    --connect-timeout 150 --json "$@" >"$folder/$name.sent" 2>"$folder/$name.sender"
}

refused() { # case words arguments
  name=$1 words=$2
  shift 2
  if timeout 100 "$fluxline" emulate --rdma "$address:$port" --simulate "$folder/frames.toml" \
    --connect-timeout 80 --token-file "$folder/token" "$@" >"$folder/refused" 2>&1; then
    fail "$name: a sender was taken that should have been refused ($words)"
  fi
  grep -q "$words" "$folder/refused" || fail "$name: expected \"$words\", the sender says: $(tail -n 1 "$folder/refused")"
}

ended() { # case: waits for the receiver, and checks what is true of every run
  wait "$receiver" || fail "$1: the receiver failed: $(tail -n 1 "$folder/$1.log")"
  settled=$(($(value "$1" complete) + $(value "$1" partial) + $(value "$1" corrupt) + $(value "$1" lost)))
  [ "$settled" = "$(value "$1" expected)" ] || fail "$1: $settled frames settled of $(value "$1" expected)"
  got=$(($(value "$1" complete) + $(value "$1" partial) + $(value "$1" corrupt)))
  [ "$(value "$1" synced)" = "$got" ] || fail "$1: $(value "$1" synced) frames stored of $got"
  same "$1" corrupt 0
  same "$1" device_copies 0
  same "$1" not_ready 0
}

arriving() { # case: waits until its run has frames; a folder in the store says less, for files and kernels take seconds to be ready
  for _ in $(seq 600); do
    listens=$(sed -n 's/.* listens at //p' "$folder/$1.log")
    [ -n "$listens" ] && curl -s "$listens/metrics" | grep -q 'fluxline_frames_total{state="complete"} *[1-9]' && return
    sleep 0.1
  done
  fail "$1: no frame arrives"
}

same() { # case name expected
  [ "$(value "$1" "$2")" = "$3" ] || fail "$1: $2 is $(value "$1" "$2"), expected $3"
}

least() { # case name least
  [ "$(value "$1" "$2")" -ge "$3" ] || fail "$1: $2 is $(value "$1" "$2"), expected at least $3"
}

case_doctor() { # what it says of a device
  "$fluxline" doctor --store "$folder" >"$folder/doctor.said" 2>&1
  for words in "active, MTU" "arrive in host memory" "NUMA node" "ECN"; do
    grep -q "$words" "$folder/doctor.said" || fail "doctor: nothing about \"$words\""
  done
}

# The same scan without RDMA, for comparison.
case_plain() {
  configure plain "kind = \"simulate\"
$(cat "$folder/frames.toml")" ""
  timeout 300 "$fluxline" run --once --json "$folder/plain.toml" >"$folder/plain.json" 2>"$folder/plain.log" ||
    fail "plain: $(tail -n 1 "$folder/plain.log")"
  same plain complete 200
}

case_scan() {
  receive scan "" ""
  send scan || fail "scan: the sender failed: $(tail -n 1 "$folder/scan.sender")"
  ended scan
  same scan complete 200
  same scan announced 200
}

case_real() { # a measured tomography, with darks, flats and angles
  [ -n "${REAL:-}" ] || { echo "    SKIPPED: REAL names no scan"; return; }
  recipe=tomography
  angles="range_deg = 180.0"
  configure real_plain "kind = \"replay\"
path = \"$REAL\"
$angles" ""
  timeout 300 "$fluxline" run --once --json "$folder/real_plain.toml" >"$folder/real_plain.json" 2>"$folder/real_plain.log" ||
    fail "real_plain: $(tail -n 1 "$folder/real_plain.log")"
  same real_plain complete 201
  receive real "" ""
  echo "$angles" >"$folder/angles.toml"
  scene="$folder/angles.toml"
  send real --file "$REAL" || fail "real: the sender failed: $(tail -n 1 "$folder/real.sender")"
  unset scene recipe
  ended real
  same real complete 201
}

case_events() { # woken by the device, over four connections
  receive events 'polling = "event"
queue_pairs = 4' ""
  send events --queue-pairs 4 || fail "events: the sender failed"
  ended events
  same events complete 200
  same events epochs 4
}

kill_in_mid_frame() { # after so many frames
  "$fluxline" emulate --rdma "$address:$port" --simulate "$folder/frames.toml" --token-file "$folder/token" \
    --fault half-a-frame --fault-after "$1" >"$folder/half" 2>&1 &
  half=$!
  for _ in $(seq 600); do grep -q "half of a frame" "$folder/half" && break; sleep 0.1; done
  sleep 1
  kill -9 "$half"
  wait "$half" 2>/dev/null
}

case_killed() { # in mid-frame; another one takes over from the beginning
  receive killed "sender_timeout_s = 30.0" "" # starting a sender takes seconds under emulation
  kill_in_mid_frame 60
  send killed || fail "killed: the second sender failed"
  ended killed
  same killed complete 200
  same killed duplicate 60
  same killed broken 1
}

case_gone() { # killed, and nobody takes over
  receive gone "sender_timeout_s = 1.0" ""
  kill_in_mid_frame 60
  ended gone
  same gone complete 60
  same gone lost 140
}

case_broken() { # the queue pair is forced into the error state, again and again
  receive broken "" ""
  send broken --fault queue-pair-error --fault-after 25 || fail "broken: the sender failed"
  ended broken
  least broken epochs 7
  lost=$(value broken lost)
  [ "$lost" -le "$(reported broken in_doubt)" ] || fail "broken: $lost lost, $(reported broken in_doubt) were in doubt"
  same broken violations 0
  echo "    $lost lost at $(value broken broken) breaks; slots again after $(reported broken longest_break_s) s at most"
}

case_breaks() { # the same BREAKS times, with small frames; for a soak, and only where it is asked for
  breaks=${BREAKS:-1000}
  sed "s/512/64/; s/512/64/; s/frames = 200/frames = $((5 * breaks))/" "$folder/frames.toml" >"$folder/breaks.toml.scene"
  scene="$folder/breaks.toml.scene"
  patience=3000
  receive breaks "" ""
  while kill -0 "$receiver" 2>/dev/null; do
    echo "$(ls "/proc/$receiver/fd" | wc -l) $(ls "/proc/$receiver/task" | wc -l) $(awk '/VmRSS/ { print $2 }' "/proc/$receiver/status")"
    sleep 5
  done >"$folder/breaks.seen" 2>/dev/null &
  send breaks --fault queue-pair-error --fault-after 5 || fail "breaks: the sender failed: $(tail -n 1 "$folder/breaks.sender")"
  unset scene patience
  ended breaks
  least breaks epochs $((breaks - 10))
  same breaks violations 0
  lost=$(value breaks lost)
  [ "$lost" -le "$(reported breaks in_doubt)" ] || fail "breaks: $lost lost, $(reported breaks in_doubt) were in doubt"
  early=$(sed -n 4p "$folder/breaks.seen") late=$(grep -E '^[0-9]+ [0-9]+ [0-9]+$' "$folder/breaks.seen" | tail -n 2 | head -n 1)
  echo "    $(value breaks broken) breaks, $lost lost; slots again after $(reported breaks longest_break_s) s at most"
  echo "    files, threads, KiB resident: $early, later $late"
  [ "${late%% *}" -le $((${early%% *} + 4)) ] || fail "breaks: files are left behind"
}

case_refusals() { # strangers and those that ask for too much; then a good one
  receive refusals "frame_bytes_max = 1000000" ""
  refused token "the token is not the receiver's" --fault wrong-token
  refused credits "grants up to 256 slots" --fault ask-too-much
  refused size "frames of up to 1000000 bytes" --fault frame-too-large
  refused epoch "the receiver is in epoch 1" --fault stale-hello
  refused parts "1 connections of a sender" --queue-pairs 2
  send refusals || fail "refusals: the good sender failed"
  ended refusals
  same refusals complete 200
  for reason in token too_many_credits frame_too_large stale_epoch too_many_parts; do
    same refusals "refused_$reason" 1
  done
}

case_stale() { # headers of another epoch are counted and let go
  receive stale "" ""
  send stale --fault stale-epoch --fault-after 10 || fail "stale: the sender failed"
  ended stale
  same stale complete 200
  same stale stale 11
}

case_second() { # while one sends, another is refused; where two are allowed it is taken
  receive second "" ""
  send second --rate 10 &
  first=$!
  arriving second
  refused second "takes 1 senders at once"
  wait "$first" || fail "second: the first sender failed"
  ended second
  same second complete 200
  receive both "senders_max = 2" ""
  send both --rate 50 &
  first=$!
  sleep 1
  send both2 --rate 50 || fail "both: the second sender failed"
  wait "$first" || fail "both: the first sender failed"
  ended both
  same both complete 200
}

case_slow() { # the receiver stands still for a while and the sender cannot wait: whole frames are let go, exactly
  slots=16
  receive slow "" 'when_full = "drop"'
  send slow --drop --slots 16 --rate 40 &
  first=$!
  arriving slow
  kill -STOP "$receiver"
  sleep 5 # at four frames a second its 16 slots would be full
  kill -CONT "$receiver"
  wait "$first" || fail "slow: the sender failed: $(tail -n 1 "$folder/slow.sender")"
  ended slow
  slots=32
  same slow lost "$(reported slow dropped)"
  least slow lost 1
  least slow complete 1
  echo "    $(value slow complete) arrived, $(value slow lost) let go"
}

detector() { # case service streams; `more` adds to the source
  slots=64
  receive "$1" "mode = \"detector\"
queue_pairs = $3
${more:-}" 'when_full = "drop"'
  name=$1 service=$2 streams=$3
  shift 3
  send "$name" --free "$service" --queue-pairs "$streams" "$@" || fail "$name: the sender failed: $(tail -n 1 "$folder/$name.sender")"
  wait "$receiver" || fail "$name: the receiver failed: $(tail -n 1 "$folder/$name.log")"
  slots=32
  settled=$(($(value "$name" complete) + $(value "$name" lost)))
  [ "$settled" = "$(value "$name" expected)" ] || fail "$name: $settled settled of $(value "$name" expected)"
  same "$name" corrupt 0
  same "$name" violations 0
}

case_detector() { # slowly enough: everything arrives
  detector detector uc 1 --rate 15
  same detector complete 200
}

case_reliable_detector() { # with two streams; the service repeats what finds no receive
  detector reliable_detector rc 2 --rate 15
  same reliable_detector complete 200
}

case_overrun() { # as fast as it can: what found no slot is missing, and nothing is torn
  more="credits = 2"
  detector overrun uc 1
  more=""
  least overrun lost 1
  echo "    $(value overrun complete) arrived, $(value overrun gaps) found missing on the way, $(value overrun overruns) overruns"
}

case_rate() { # beside ib_write_bw; woken by events, because a processor that asks all the time is missing to Soft-RoCE
  sed 's/512/724/; s/512/724/; s/checksum = true/checksum = false/; s/frames = 200/frames = 300/' \
    "$folder/frames.toml" >"$folder/rate.toml" # 724 x 724 x 2 is a megabyte
  for turn in 1 2 3; do
    ib_write_bw -R -F -s 1048352 -n 300 -t 16 >"$folder/bw.server" 2>&1 &
    server=$!
    sleep 2
    timeout 60 ib_write_bw -R -F -s 1048352 -n 300 -t 16 "$address" >"$folder/bw.$turn" 2>&1
    wait "$server"
    timeout 100 "$fluxline" rdma-rate --event --listen "$address:$port" >"$folder/rate.out" 2>&1 &
    server=$!
    timeout 60 "$fluxline" emulate --rdma "$address:$port" --simulate "$folder/rate.toml" --slots 16 >/dev/null 2>"$folder/rate.sender" ||
      fail "rate: $(tail -n 1 "$folder/rate.sender")"
    wait "$server" || fail "rate: $(tail -n 1 "$folder/rate.out")"
    echo "    ib_write_bw $(awk '$1 == 1048352 { print $4 }' "$folder/bw.$turn") MB/s (2^20); Fluxline $(cat "$folder/rate.out")"
  done
}

case_latency() { # announce to lease: small frames, slowly; woken by events, and asking all the time
  sed 's/512/32/; s/512/32/; s/checksum = true/checksum = false/; s/frames = 200/frames = 300/' "$folder/frames.toml" >"$folder/small.toml"
  for polling in --event ""; do
    timeout 100 "$fluxline" rdma-rate $polling --listen "$address:$port" >"$folder/latency.out" 2>&1 &
    server=$!
    timeout 60 "$fluxline" emulate --rdma "$address:$port" --simulate "$folder/small.toml" --slots 16 --rate 30 >/dev/null 2>"$folder/latency.sender" ||
      fail "latency: $(tail -n 1 "$folder/latency.sender")"
    wait "$server" || fail "latency: $(tail -n 1 "$folder/latency.out")"
    echo "    announce to lease${polling:+, $polling}:$(sed 's/.*latency//' "$folder/latency.out")"
  done
}

case_minimal() { # the sender of docs/rdma.md, where it has been compiled: MINIMAL says where
  [ -n "${MINIMAL:-}" ] || { echo "    SKIPPED: MINIMAL names no program"; return; }
  slots=64
  curve="" # it says nothing about geometry
  receive minimal 'mode = "detector"' 'when_full = "drop"'
  slots=32
  unset curve
  for _ in $(seq 100); do ss -ltn | grep -q ":$port " && break; sleep 0.2; done
  "$MINIMAL" "$address" "::ffff:$address" "$(printf %s "$(cat "$folder/token")" | sha256sum | cut -c1-32)" ||
    fail "minimal: the sender failed"
  ended minimal
  same minimal expected "${MINIMAL_FRAMES:-1000}"
}

case_none() { # without a device
  [ -n "$(ls /sys/class/infiniband 2>/dev/null)" ] && rdma link delete rxe0
  receive none "" ""
  wait "$receiver" && fail "none: it should have failed"
  grep -q "there is no RDMA device on this machine" "$folder/none.log" || fail "none: $(tail -n 1 "$folder/none.log")"
  "$fluxline" doctor --store "$folder" >"$folder/doctor.none" 2>&1
  grep -q "there is no RDMA device" "$folder/doctor.none" || fail "none: doctor does not say so"
  device
}

net=${NET:-$(ip -o -4 addr show scope global | awk '{print $2; exit}')}
device
address=$(ip -o -4 addr show dev "$net" | awk '{sub("/.*", "", $4); print $4; exit}')
echo "a token of this test" >"$folder/token"
cat >"$folder/frames.toml" <<'END'
scene = "diffraction"
detector = "custom"
rows = 512
columns = 512
frames = 200
rate_hz = 0.0
distinct = 8
checksum = true
END
all="doctor plain scan events real killed gone broken refusals stale second slow detector reliable_detector overrun minimal rate latency none"
for case in ${*:-$all}; do
  bad=0
  began=$(date +%s)
  "case_$case"
  if [ "$bad" = 0 ]; then
    passed=$((passed + 1))
    echo "passed  $case ($(($(date +%s) - began)) s)"
  else
    failed=$((failed + 1))
    echo "FAILED  $case ($(($(date +%s) - began)) s)"
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
