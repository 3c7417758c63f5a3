#!/usr/bin/env bash
# From nothing to a trained, evaluated and searchable CLIP-GS on procedural toys, with a report at the end.
#
#   bash tools/quickstart.sh [--short] [FILE ...]
#
#   FILE      splat files to embed, classify and search at the end; by default a few toys
#   --short   a few objects and epochs, to check that everything runs, in about two minutes
#
# All output goes to work_dirs/quickstart (work_dirs/quickstart-short); an interrupted run resumes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

CONFIG=clipgs_pointbert-nano_15e_toy-world
WORK=work_dirs/quickstart; OBJECTS=(); OPTIONS=()
FILES=()
for argument in "$@"; do
    case "$argument" in
        --short) WORK=work_dirs/quickstart-short; OBJECTS=(--num-train 120 --num-val 60 --num-test 60)
                 OPTIONS=(--cfg-options train_cfg.max_epochs=2) ;;
        -h|--help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
        -*) echo "error: unknown option $argument; see --help" >&2; exit 2 ;;
        *) [ -e "$argument" ] || { echo "error: $argument does not exist" >&2; exit 1; }
           FILES+=("$(realpath "$argument")") ;;
    esac
done

make_environment
cd "$ROOT"
export CLIPGS_TOY_WORLD="$ROOT/$WORK/toy_world"
started=$SECONDS

say "1/7 Toy world: objects as Gaussians, with views and captions"
"$PY" tools/make_toy_world.py "$CLIPGS_TOY_WORLD" --export "$WORK/files" ${OBJECTS[@]+"${OBJECTS[@]}"}
[ ${#FILES[@]} -gt 0 ] || FILES=("$WORK/files")

say "2/7 Teacher: features of every view and caption by the frozen CLIP model 'toy-clip'"
"$PY" tools/cache_features.py "$CLIPGS_TOY_WORLD" --teacher toy-clip

say "3/7 Training the splat encoder ($CONFIG); curves: tensorboard --logdir $WORK"
"$PY" tools/train.py "$CONFIG" --work-dir "$WORK" --resume auto ${OPTIONS[@]+"${OPTIONS[@]}"}

say "4/7 Evaluating on unseen objects: zero-shot classification and retrieval"
CHECKPOINT="$(ls -t "$WORK"/best_*.pth | head -n 1)"
"$PY" tools/test.py "$WORK/$CONFIG.py" "$CHECKPOINT" --json > "$WORK/results.json"

say "5/7 Embedding splat files"
"$PY" tools/embed.py "${FILES[@]}" -o "$WORK/embeddings.npz" --model "$WORK/$CONFIG.py" --checkpoint "$CHECKPOINT"

say "6/7 Searching them for 'a red chair'"
"$PY" tools/search.py "$WORK/embeddings.npz" --text 'a red chair' -k 5

say "7/7 Writing the report"
"$PY" tools/report.py "$WORK" -o "$WORK/report.html"
say "Done in $((SECONDS - started)) s. Open $WORK/report.html"
