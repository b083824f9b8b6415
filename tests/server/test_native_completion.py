"""``/completion`` answers as llama-server does (golden/make_native_completions.py asked it)."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from lfm2gguf import Runner
from tests.golden.make_native_completions import CASES, TARGET, TEXT, ask

THEIRS = json.loads(TARGET.read_text("utf-8"))
# What is a server's own: its slots and times, and the names of samplers that the runner lacks.
OWN = {"id_slot", "timings", "model", "generation_settings", "tokens_cached"}


def plain(answer: Any) -> Any:
    """Return an answer without what is a server's own, its numbers to three digits."""
    if isinstance(answer, dict):
        return {name: plain(value) for name, value in answer.items() if name not in OWN}
    if isinstance(answer, list):
        return [plain(part) for part in answer]
    return pytest.approx(answer, abs=1e-3) if isinstance(answer, float) else answer


@pytest.mark.parametrize(("case", "theirs"), list(zip(CASES, THEIRS, strict=True)))
def test_the_answers_are_llama_servers(case: dict[str, Any], theirs: Any, url: str) -> None:
    ours = ask(url, case)
    assert plain(ours) == plain(theirs)
    names = [set(part) for part in (ours if isinstance(ours, list) else [ours])]  # type: ignore
    assert names == [set(part) for part in (theirs if isinstance(theirs, list) else [theirs])]


def test_how_an_answer_was_generated(url: str, runner: Runner) -> None:
    body = {"prompt": TEXT * 60, "n_predict": 2, "seed": 7, "repeat_last_n": 9, "stop": ["x"]}
    answer = httpx.post(f"{url}/completion", json=body).json()
    settings = answer["generation_settings"]
    known = next(a for a in THEIRS if isinstance(a, dict) and "generation_settings" in a)
    others = {"adapter_scale", "min_tokens", "n_ctx"}  # which llama-server has no names for
    assert set(settings) - others <= set(known["generation_settings"])
    assert settings["min_p"] == pytest.approx(runner.defaults.min_p)
    assert (settings["seed"], settings["repeat_last_n"], settings["stop"]) == (7, 9, ["x"])
    assert answer["tokens_cached"] == answer["timings"]["cache_n"]
    again = httpx.post(f"{url}/completion", json=body).json()
    assert again["content"] == answer["content"]
    assert again["tokens_cached"] > 0


def test_the_context_bounds_it(url: str) -> None:
    body = {"prompt": TEXT, "ignore_eos": True, "response_fields": ["truncated", "stop_type"]}
    assert httpx.post(f"{url}/completion", json=body, timeout=60).json() == {
        "truncated": True, "stop_type": "limit"
    }  # fmt: skip
    nothing = httpx.post(f"{url}/completion", json={"prompt": TEXT, "n_predict": 0}).json()
    assert (nothing["content"], nothing["tokens_predicted"]) == ("", 0)


WRONG = [
    None, [], [[]], {}, {"prompt_string": "x", "more": 1}, 5, [10**7], [-1], [True], ["x", None],
    [[["x"]]], {"prompt_string": "x", "multimodal_data": ["QQ=="]},
]  # fmt: skip


@pytest.mark.parametrize("prompt", WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_wrong_prompts(prompt: Any, stream: bool, url: str) -> None:
    answer = httpx.post(f"{url}/completion", json={"prompt": prompt, "stream": stream})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
