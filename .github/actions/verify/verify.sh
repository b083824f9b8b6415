#!/usr/bin/env bash
# Converts $MODEL to $TYPES, verifies each file, and writes the job's summary and outputs.
set -euo pipefail

read -ra types <<< "$TYPES"
read -ra convert_options <<< "${CONVERT_OPTIONS:-}"
read -ra verify_options <<< "${VERIFY_OPTIONS:-}"

mkdir -p "$FOLDER" "$REPORT"
{
    echo "folder=$FOLDER"
    echo "report=$REPORT"
} >> "$GITHUB_OUTPUT"

lfm2gguf convert "$MODEL" "${types[@]/#/-t}" "${convert_options[@]}" --force -o "$FOLDER"

code=0
lfm2gguf verify "$FOLDER" --reference "$MODEL" "${verify_options[@]}" \
    --json-file "$REPORT/verify.json" --junit "$REPORT/verify.xml" \
    --markdown "$REPORT/verify.md" --plot "$REPORT/verify.svg" || code=$?

if [ -f "$REPORT/verify.md" ]; then
    cat "$REPORT/verify.md" >> "$GITHUB_STEP_SUMMARY"
fi
if [ "$code" -eq 0 ]; then passed=true; else passed=false; fi
echo "passed=$passed" >> "$GITHUB_OUTPUT"
exit "$code"
