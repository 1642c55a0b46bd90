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
  # enough steps that it cannot finish before it is stopped at its first checkpoint
  run=(slotssm train --preset "$name" --set train.num_steps=400 --out "runs/$name")
  "${run[@]}" &
  pid=$!
  until [ -e "runs/$name/checkpoints/last" ]; do
    kill -0 "$pid" || { echo "smoke: training ended early" >&2; exit 1; }
    sleep 0.05
  done
  kill -TERM "$pid"
  expect 3 wait "$pid"
  "${run[@]}" --resume
  grep -q '^{"step": 400, "split": "train"' "runs/$name/metrics.jsonl"
done

say evaluate
slotssm eval runs/tiny-bcb --metric mse,color-accuracy,position-iou,white-floor
slotssm eval runs/tiny-oc --metric fg-ari --metric miou --json
slotssm eval runs/tiny-oc --metric fg-ari --mask-source attention --per-frame

slotssm eval runs/tiny-oc --metric fg-ari,miou --out ours.json
slotssm eval runs/tiny-oc --metric fg-ari,miou --mask-source attention --out theirs.json
slotssm eval --compare ours.json theirs.json
slotssm eval runs/tiny-oc --conventions all --metric fg-ari
slotssm eval runs/tiny-oc --metric probe --properties color,position

say "other people's formats"
slotssm generate bouncing --preset hard --size 32 --frames 4 --train 6 --val 2 --test 2 --out data/hard.h5
for form in webdataset folder numpy zarr; do
  slotssm export data/hard.h5 --to "$form" --out "exported/$form"
done
slotssm import folder exported/folder --out data/imported.h5
slotssm train --preset tiny-oc --data data/imported.h5 --set train.num_steps=5 --set train.clip_len=3 \
  --out runs/imported

say visualize
slotssm visualize runs/tiny-bcb --episodes 0 --out bcb.gif
slotssm visualize runs/tiny-oc --episodes 0,1 --out oc.mp4
slotssm visualize data/bouncing-2-3x32.h5 --out data.png
test -s bcb.gif && test -s oc.mp4 && test -s data.png

say reproduce
slotssm reproduce efficiency --scale tiny --models slotssm,slot-transformer
slotssm reproduce object-centric --scale tiny --models oc-slotssm,savi
reproduce=(slotssm reproduce long-context --scale tiny --models slotssm)
"${reproduce[@]}" --dry-run
"${reproduce[@]}"
made=reproductions/long-context-tiny
cp "$made/result.json" first.json
"${reproduce[@]}" # everything is done: the same again at once
cmp first.json "$made/result.json"
test -s "$made/table.csv" && test -s "$made/figures/earliest-T6-L20-over-balls.png"

say refusals
expect 2 slotssm reproduce long-context --scale tiny --lengths 21
expect 2 slotssm generate bcb --len 81
expect 2 slotssm train --preset tiny-oc --out runs/tiny-oc
expect 2 slotssm eval runs/tiny-oc --metric color-accuracy

say "smoke passed"
