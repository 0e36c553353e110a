#!/usr/bin/env bash
# All load tests whose figures are in README.md and docs/benchmarks.md. The machine must be quiet meanwhile.
#
#   loadtest/measure.sh scenarios | knee | peer | peer-0.6B | noise | all
#
# REQUESTS (1000) is the number of requests of a trial of a knee: fewer cannot tell 0.1 % of spoiled streams from none.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
requests=${REQUESTS:-1000}
docs=docs/benchmarks
work=loadtest-report

keep() { # DIRECTORY NAME: copy the files of a report that are checked in
    cp "$work/$1/result.json" "$docs/$2.json"
    cp "$work/$1/report.html" "$docs/$2.html"
}

serving() { # PORT: our service with its default settings, until this shell ends
    .venv/bin/qwen-tts serve --port "$1" >"$work/serve.log" 2>&1 &
    service=$!
    trap 'kill ${proxies:-} $service; wait' EXIT
    until curl -sf "http://127.0.0.1:$1/readyz" >/dev/null; do
        kill -0 "$service" # fails, and ends this script, if the service has died
        sleep 1
    done
}

scenarios() ( # 8 minutes
    serving 8011
    while read -r scenario rate count; do
        $python -m loadtest run --url http://127.0.0.1:8011 --scenario "$scenario" --language english --rate "$rate" \
            --requests "$count" --label "$scenario, embedded models, default settings" --out "$work/$scenario"
        keep "$scenario" "scenario-$scenario"
    done <<'RATES'
custom_voice 2 120
clone_stored 1 40
clone_inline 0.5 20
design_then_clone 0.3 10
live_text 1 40
long_form 0.1 4
mixed 0.7 40
RATES
)

knee() { # at 2 a second a trial takes 8 minutes; a rate that is kept takes two trials
    $python -m loadtest knee --language english --ttfa-ms 500 --requests "$requests" --lowest 0.5 \
        --label "custom_voice, embedded model, default settings" --out "$work/knee"
    keep knee knee-embedded
}

peer() { # some trials of each, 1 to 4 minutes apiece; float32 is the faster one for the peer, too
    $python -m loadtest.peer.environment
    checkpoint=$($python -c 'from qwen_tts.embedded import embedded_checkpoint as e; print(e("custom_voice"))')
    side_by_side=($python -m loadtest side-by-side "$checkpoint" --language english
        --peer-dtype float32 --peer-requests 24 --requests 150 --lowest 0.2 --highest 8 --tolerance 0.3 --out "$docs")
    "${side_by_side[@]}" --name embedded-auto --start-buffer-ms 1000 --our-lowest 2
    "${side_by_side[@]}" --name embedded-1000 --ttfa-ms 1000 --our-lowest 0.5
}

# A request is half a second of audio, which takes the peer some seconds. Each dtype takes half an hour. When both cores
# are busy, one of 40 requests may leave 50 ms late; that is allowed, because the TTFA limit is several seconds.
peer_06b() {
    checkpoint=bench-work/custom-voice-0.6B
    [ -d "$checkpoint" ] || .venv/bin/qwen-tts make-checkpoint --shape 0.6B --type custom_voice "$checkpoint"
    $python -m loadtest.peer.environment
    for dtype in bfloat16 int8; do
        $python -m loadtest side-by-side "$checkpoint" --language english --field max_new_tokens=8 --timeout-s 600 \
            --allow-underruns --allowed-lag-ms 50 --dtype "$dtype" --peer-dtype bfloat16 \
            --peer-requests 20 --requests 40 --lowest 0.1 --our-lowest 0.8 --highest 4 --tolerance 0.5 \
            --name "0.6B-$dtype" --out "$docs"
    done
}

noise() ( # the same build twice, then the same build behind a proxy that makes it a fifth slower; 6 minutes
    # One caller at a time: the runs compare the speed of a stream, without time in a queue.
    options=(--language english --load closed --users 1 --requests 20 --repeat 5)
    serving 8011
    $python -m tests.loadtest.slow_proxy http://127.0.0.1:8011 --port 8012 --slower 1.0 &
    same=$!
    $python -m tests.loadtest.slow_proxy http://127.0.0.1:8011 --port 8013 --slower 1.2 &
    slower=$!
    proxies="$same $slower"
    $python -m loadtest run --url http://127.0.0.1:8012 "${options[@]}" --label "baseline" --out "$work/baseline"
    keep baseline noise-baseline
    for port in 8012 8013; do
        $python -m loadtest run --url "http://127.0.0.1:$port" "${options[@]}" --out "$work/$port" \
            --baseline "$work/baseline/result.json" | tee "$work/$port.txt" || echo "a regression was found"
    done
)

mkdir -p "$work" "$docs"
case "${1:-}" in
    scenarios | knee | peer | noise) "$1" ;;
    peer-0.6B) peer_06b ;;
    all) scenarios && knee && peer && noise && peer_06b ;;
    *) sed -n '2,6p' "$0" && exit 2 ;;
esac
$python -m loadtest readme
