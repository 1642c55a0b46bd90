#!/usr/bin/env bash
# The whole pipeline on tiny configurations, through the installed command, in an empty folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

say() { printf '\n== %s\n' "$*"; }
expect() { # expect CODE COMMAND...
  local wanted=$1 code=0
  shift
  "$@" || code=$?
  if [ "$code" != "$wanted" ]; then
    echo "smoke: expected exit $wanted, got $code: $*" >&2
    exit 1
  fi
}

say generate
slotssm generate bcb --len 2560 --train 20 --val 4 --test 4
slotssm generate bouncing --objects 2-3 --size 32 --frames 8 --train 20 --val 4 --test 4 --json
slotssm verify data/bcb-earliest-2560.h5 --all
slotssm inspect data/bouncing-2-3x32.h5

for name in tiny-bcb tiny-oc; do
  say "train and resume $name"
  slotssm train --preset "$name" --out "runs/$name" &
  pid=$!
  # stop it as soon as the first checkpoint is there; it may have finished by then
  for _ in $(seq 300); do
    if [ -e "runs/$name/checkpoints/last" ] || ! kill -0 "$pid" 2>/dev/null; then break; fi
    sleep 0.1
  done
  kill -TERM "$pid" 2>/dev/null || true
  code=0
  wait "$pid" || code=$?
  [ "$code" = 3 ] || [ "$code" = 0 ] || { echo "smoke: training ended with $code" >&2; exit 1; }
  slotssm train --preset "$name" --out "runs/$name" --resume
done

say evaluate
slotssm eval runs/tiny-bcb --metric mse,color-accuracy,position-iou,white-floor
slotssm eval runs/tiny-oc --metric fg-ari --metric miou --json
slotssm eval runs/tiny-oc --metric fg-ari --mask-source attention --per-frame

say visualize
slotssm visualize runs/tiny-bcb --episodes 0 --out bcb.gif
slotssm visualize runs/tiny-oc --episodes 0,1 --out oc.mp4
slotssm visualize data/bouncing-2-3x32.h5 --out data.png
test -s bcb.gif && test -s oc.mp4 && test -s data.png

say refusals
expect 2 slotssm generate bcb --len 81
expect 2 slotssm train --preset tiny-oc --out runs/tiny-oc
expect 2 slotssm eval runs/tiny-oc --metric color-accuracy

say "smoke passed"
