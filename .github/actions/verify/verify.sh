#!/usr/bin/env bash
# Converts $MODEL to $TYPES, verifies each file, and writes the job's summary and outputs.
set -euo pipefail

# Lines of a YAML block are words as spaces are; read ends with 1 where its text ends.
read -rd '' -a types <<< "$TYPES" || true
read -rd '' -a convert_options <<< "${CONVERT_OPTIONS:-}" || true
read -rd '' -a verify_options <<< "${VERIFY_OPTIONS:-}" || true

mkdir -p "$FOLDER" "$REPORT"
{
    echo "folder=$FOLDER"
    echo "report=$REPORT"
} >> "$GITHUB_OUTPUT"

# macOS has bash 3.2, to which an empty array is unset: it must not be expanded.
lfm2gguf convert "$MODEL" "${types[@]/#/-t}" ${convert_options[@]+"${convert_options[@]}"} \
    --force -o "$FOLDER"

code=0
lfm2gguf verify "$FOLDER" --reference "$MODEL" ${verify_options[@]+"${verify_options[@]}"} \
    --json-file "$REPORT/verify.json" --junit "$REPORT/verify.xml" \
    --markdown "$REPORT/verify.md" --plot "$REPORT/verify.svg" || code=$?

if [ -f "$REPORT/verify.md" ]; then
    cat "$REPORT/verify.md" >> "$GITHUB_STEP_SUMMARY"
fi
if [ "$code" -eq 0 ]; then passed=true; else passed=false; fi
echo "passed=$passed" >> "$GITHUB_OUTPUT"
exit "$code"
