"""Each thing that can be wrong with a GGUF file, planted and found."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm2gguf import convert, diagnose
from lfm2gguf.chat import environment
from lfm2gguf.conversion import Recipe
from lfm2gguf.doctor import BACKENDS, Finding, Severity
from lfm2gguf.errors import GGUFError, OptionError
from lfm2gguf.ggml import GGMLType
from lfm2gguf.gguf_file import Value, ValueType
from lfm2gguf.install import install_command
from lfm2gguf.quants import quantize
from tests.doctor.operations import Change, f32, rewrite
from tests.making.checkpoints import MOE_CASES, make
from tests.making.realdata import each
from tests.making.retrieval_checkpoints import CASES, make_retrieval

T = ValueType
ERROR, WARNING, NOTE = Severity
TEMPLATE = "tokenizer.chat_template"
GOOD = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
)
HEALTHY = Change({TEMPLATE: Value(T.STRING, GOOD)})


@pytest.fixture(scope="session")
def q4(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound Q4_K_M file; not to be changed."""
    folder = tmp_path_factory.mktemp("doctor")
    path = convert(wide, folder / "plain.gguf", "Q4_K_M", jobs=1).files[0].path
    return rewrite(path, folder / "q4.gguf", HEALTHY)


@pytest.fixture
def examine(q4: Path, tmp_path: Path) -> Any:
    """Change a sound file, examine it, and return the findings by their id."""

    def with_change(change: Change, **options: Any) -> dict[str, Finding]:
        path = rewrite(q4, tmp_path / "changed.gguf", change)
        found = diagnose(path, **options).findings
        assert len({f.id for f in found}) == len(found), found
        return {f.id: f for f in found}

    return with_change


def test_a_sound_file_is_healthy(q4: Path) -> None:
    diagnosis = diagnose(q4)
    assert diagnosis.healthy
    assert diagnosis.findings == ()
    assert "14620" in diagnosis.facts[0]
    assert diagnosis.to_json()["errors"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sound_file_runs_everywhere(q4: Path, backend: str) -> None:
    assert diagnose(q4, backend=backend).healthy


def metadata(**values: Any) -> Change:
    kinds = {bool: T.BOOL, int: T.UINT32, str: T.STRING}
    keys = {key.replace("__", "."): value for key, value in values.items()}
    return Change({k: None if v is None else Value(kinds[type(v)], v) for k, v in keys.items()})


def types(**changes: int) -> Change:
    """Tokens with other types, by id."""
    values = {int(key[1:]): value for key, value in changes.items()}
    ids = [values.get(i, 3 if i < 10 or i in (274, 275) else 1) for i in range(300)]
    return Change({"tokenizer.ggml.token_type": Value(T.ARRAY, ids, T.INT32)})


def kv_heads(*each: int) -> Change:
    return Change({"lfm2.attention.head_count_kv": Value(T.ARRAY, list(each), T.INT32)})


BF16 = GGMLType.BF16
SOME = np.arange(512, dtype=np.float32).reshape(2, 256)
PLANTED = {
    "another architecture": (metadata(general__architecture="llama"), "architecture", WARNING,
                             "'llama'"),
    "feed-forward width": (metadata(lfm2__feed_forward_length=768), "feed-forward-width", ERROR,
                           "is 768, and blk.0.ffn_gate.weight is 512 wide"),
    "old norm name": (Change(names={"token_embd_norm.weight": "output_norm.weight"}),
                      "old-norm-name", ERROR, "token_embd_norm.weight"),
    "no norm": (Change(names={"token_embd_norm.weight": None}), "tensor-missing", ERROR,
                "the metadata calls for it"),
    "no matrix": (Change(names={"blk.1.ffn_up.weight": None}), "tensor-missing", ERROR,
                  "it is missing"),
    "no key norm": (Change(names={"blk.1.attn_k_norm.weight": None}), "tensor-missing", ERROR,
                    "it is missing"),
    "unknown tensor": (Change(tensors={"blk.1.extra.weight": f32(SOME)}), "tensor-unknown", ERROR,
                       "has no place"),
    "a layer more": (Change(tensors={"blk.2.ffn_norm.weight": f32(SOME[0])}), "tensor-unknown",
                     ERROR, "has no place"),
    "other heads": (metadata(lfm2__attention__head_count=8), "tensor-shape", ERROR,
                    "is 128 x 256, and the metadata calls for 64 x 256"),
    "other KV heads": (kv_heads(0, 4), "tensor-shape", ERROR, "calls for 256 x 256"),
    "KV heads of more layers": (kv_heads(0, 2, 0), "metadata-key", ERROR,
                                "has 3 items for 2 layers"),
    "other kernel": (metadata(lfm2__shortconv__l_cache=4), "tensor-shape", ERROR,
                     "is 4, and blk.0.shortconv.conv.weight is 3 wide"),
    "no kernel": (metadata(lfm2__shortconv__l_cache=None), "metadata-key", ERROR, "is missing"),
    "no epsilon": (metadata(lfm2__attention__layer_norm_rms_epsilon=None), "metadata-key", ERROR,
                   "is missing"),
    "width as text": (metadata(lfm2__embedding_length="256"), "metadata-key", ERROR,
                      "is string, where a uint32 belongs"),
    "too many layers": (metadata(lfm2__block_count=600, lfm2__attention__head_count_kv=2),
                        "metadata-key", ERROR, "is 600"),
    "fewer tokens than rows": (
        Change({"tokenizer.ggml.tokens": Value(T.ARRAY, [f"t{i}" for i in range(299)], T.STRING),
                "tokenizer.ggml.bos_token_id": None, "tokenizer.ggml.eos_token_id": None,
                TEMPLATE: Value(T.STRING, "{{ messages[-1].content }}{{ tools }}")}),
        "vocabulary-rows", ERROR, "300 rows for 299 tokens"),
    "temperature below zero": (
        Change({"general.sampling.temp": Value(T.FLOAT32, -1.0)}), "sampling", WARNING,
        "temperature is -1.0"),
    "temperature that is no number": (
        Change({"general.sampling.temp": Value(T.FLOAT32, float("nan"))}), "sampling", WARNING,
        "general.sampling.temp is nan, not a number"),
    "a token twice": (
        Change({"tokenizer.ggml.tokens":
                Value(T.ARRAY, [*(f"t{i}" for i in range(299)), "t50"], T.STRING),
                TEMPLATE: Value(T.STRING, "{{ messages[-1].content }}{{ tools }}")}),
        "token-twice", ERROR, "'t50' more than once"),
    "id past the last token": (metadata(tokenizer__ggml__eos_token_id=300), "token-id", ERROR,
                               "is 300, and there are 300 tokens"),
    "normal special token": (types(t6=1), "special-token-type", ERROR, "<|im_start|>"),
    "printed special token": (types(t7=4), "special-token-type", WARNING, "<|im_end|>"),
    "long context": (metadata(lfm2__context_length=128_000), "context-length", WARNING, "32768"),
    "no template": (Change({TEMPLATE: None}), "template-missing", WARNING, "no chat template"),
    "broken template": (metadata(tokenizer__chat_template="{% for %}"),
                        "template-does-not-render", ERROR, "system and a user message"),
    "refusing template": (
        metadata(tokenizer__chat_template="{{ raise_exception('no system role') }}"),
        "template-does-not-render", ERROR, "no system role"),
    "unsafe template": (
        metadata(tokenizer__chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        "template-does-not-render", ERROR, "unsafe"),
    "template without messages": (metadata(tokenizer__chat_template="{{ tools }}"),
                                  "template-drops-messages", ERROR, "user's message"),
    "template without tools": (
        metadata(tokenizer__chat_template=GOOD.replace("{{ tools | tojson }}", "")),
        "template-drops-tools", WARNING, "loses the tools it is given;"),
    "template without results": (
        metadata(tokenizer__chat_template="{% for m in messages if m.role != 'tool' %}"
                 "{{ m.content }}{% endfor %}{{ tools }}"),
        "template-drops-tools", WARNING, "loses the tools' results;"),
    "template with a foreign token": (metadata(tokenizer__chat_template=GOOD + "<|eot_id|>"),
                                      "template-token", ERROR, "<|eot_id|>"),
    "template with a byte-order mark": (metadata(tokenizer__chat_template="\ufeff" + GOOD),
                                        "template-byte-order-mark", WARNING, "U+FEFF"),
    "template with two BOS": (metadata(tokenizer__chat_template="{{ bos_token }}" + GOOD),
                              "bos-doubled", ERROR, "writes <|startoftext|> twice"),
    "convolution in BF16": (
        Change(tensors={"blk.0.shortconv.conv.weight":
                        (BF16, np.arange(768, dtype="<u2").reshape(256, 3))}),
        "convolution-type", ERROR, "F32 only"),
    "integers for weights": (
        Change(tensors={"blk.0.ffn_up.weight":
                        (GGMLType.I32, np.arange(512 * 256, dtype="<i4").reshape(512, 256))}),
        "type-not-for-weights", ERROR, "I32"),
    "NaN": (Change(tensors={"blk.0.attn_norm.weight": f32([[1.0] * 255 + [np.nan]])}),
            "not-finite", ERROR, "1 of 1 rows"),
    "infinity": (Change(tensors={"blk.0.attn_norm.weight": f32([1.0] * 255 + [-np.inf])}),
                 "not-finite", ERROR, "holds NaN or infinity"),
    "a zero norm": (Change(tensors={"blk.0.ffn_norm.weight": f32([0.0] * 255 + [-0.0])}),
                    "zero-tensor", ERROR, "is all zero"),
    "a norm of ones": (Change(tensors={"blk.0.ffn_norm.weight": f32([1.0] * 256)}),
                       "constant-tensor", NOTE, "same value"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_finds_what_was_planted(name: str, examine: Any) -> None:
    change, id, severity, words = PLANTED[name]
    finding = examine(change)[id]
    assert finding.severity is severity
    assert words in finding.what
    assert finding.where
    assert finding.remedy


@pytest.mark.parametrize("name", [n for n in PLANTED if "template" not in n and "BOS" not in n])
def test_finds_nothing_else(name: str, examine: Any) -> None:
    change, id, *_ = PLANTED[name]
    expected = {id}
    if name == "integers for weights":
        expected.add("not-examined")
    assert set(examine(change)) <= expected


def rows(type: GGMLType, spoil: Any) -> tuple[GGMLType, np.ndarray]:
    """Weights of one tensor with something wrong in rows 2 and 5, as a type stores them."""
    x = np.sin(np.arange(512 * 256, dtype=np.float32)).reshape(512, 256)
    x = spoil(x.copy())
    if type is GGMLType.BF16:
        return type, (x.view(np.uint32) >> 16).astype("<u2")
    return type, quantize(x, type)


def zero(x: np.ndarray) -> np.ndarray:
    x[[2, 5]] = 0
    x[5, ::2] = -0.0
    return x


def constant(x: np.ndarray) -> np.ndarray:
    x[[2, 5]] = 0.5
    return x


TYPES = [GGMLType[name] for name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q6_K", "Q5_K", "Q4_K")]


@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.name)
@pytest.mark.parametrize(("spoil", "id"), [(zero, "zero-rows"), (constant, "constant-rows")])
def test_finds_rows_in_every_type(type: GGMLType, spoil: Any, id: str, examine: Any) -> None:
    finding = examine(Change(tensors={"blk.0.ffn_up.weight": rows(type, spoil)}))[id]
    assert finding.severity is WARNING
    assert finding.where == "blk.0.ffn_up.weight"
    assert "2 of 512 rows (the first is row 2)" in finding.what


@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.name)
def test_finds_one_bad_number_in_every_type(type: GGMLType, examine: Any) -> None:
    kind, data = rows(type, lambda x: x)
    view = data.reshape(512, -1).view(np.uint8).reshape(512, -1)
    view[7, -type.type_size :] = 0xFF  # NaN in every format: numbers, or the block's scales
    finding = examine(Change(tensors={"blk.0.ffn_up.weight": (kind, data)}))["not-finite"]
    assert finding.severity is ERROR
    assert "1 of 512 rows (the first is row 7)" in finding.what


@pytest.mark.parametrize(("first", "severity"), [(290, NOTE), (200, WARNING)])
def test_zero_rows_of_tokens_that_nobody_uses(first: int, severity: Severity, examine: Any) -> None:
    x = np.sin(np.arange(300 * 256, dtype=np.float32)).reshape(300, 256)
    x[first:] = 0
    unused = types(**{f"t{i}": 5 for i in range(280, 300)})
    change = replace(unused, tensors={"token_embd.weight": f32(x)})
    assert examine(change)["zero-rows"].severity is severity


def test_decodes_types_without_a_kernel(examine: Any) -> None:
    """Q3_K is not among those that lfm2gguf writes; the gguf package reads it."""
    data = np.full((512, 110), 0x11, np.uint8)
    data[7, -2:] = 0xFF  # the scale
    data[3] = 0
    found = examine(Change(tensors={"blk.0.ffn_up.weight": (GGMLType.Q3_K, data)}))
    assert "the first is row 7" in found["not-finite"].what
    assert "the first is row 3" in found["zero-rows"].what


@pytest.mark.parametrize(
    ("type", "backend", "severity"),
    [("TQ2_0", "cuda", ERROR), ("TQ1_0", "rocm", ERROR), ("TQ1_0", "metal", ERROR),
     ("BF16", "metal", WARNING), ("TQ2_0", "metal", None), ("TQ1_0", "vulkan", None),
     ("TQ2_0", "cpu", None), ("BF16", "cuda", None)],
)  # fmt: skip
def test_types_that_a_backend_leaves_to_the_cpu(
    type: str, backend: str, severity: Severity | None, examine: Any
) -> None:
    kind = GGMLType[type]
    data = np.full((512, kind.row_bytes(256)), 0x11, np.uint8)
    finding = examine(Change(tensors={"blk.0.ffn_up.weight": (kind, data)}), backend=backend).get(
        "type-not-on-backend"
    )
    assert (finding and finding.severity) == severity
    assert finding is None or "commit 0c1e57098" in finding.what


@pytest.mark.parametrize("name", CASES)
def test_retrieval_needs_a_newer_build(name: str, tmp_path: Path) -> None:
    source = make_retrieval(CASES[name], tmp_path / name)
    diagnosis = diagnose(convert(source, source, "F16", jobs=1).files[0].path)
    assert diagnosis.healthy
    (build,) = diagnosis.facts
    causal = CASES[name].config["architectures"] == ["Lfm2Model"]
    assert ("18607" if causal else "b9777") in build
    assert "template-missing" not in {f.id for f in diagnosis.findings}


@pytest.mark.slow
@pytest.mark.parametrize("name", MOE_CASES)
def test_a_mixture_of_experts(name: str, tmp_path: Path) -> None:
    """Healthy as a checkpoint and as a file, which a newer build than the dense one loads."""
    source = make(MOE_CASES[name], tmp_path / name)
    file = convert(source, source, "Q4_K_M", jobs=1).files[0].path
    for diagnosis in (diagnose(source), diagnose(file)):
        assert diagnosis.healthy, diagnosis.findings
        assert "b6709" in diagnosis.facts[0]


MIXTURE = {
    "another width": (metadata(lfm2moe__expert_feed_forward_length=128),
                      {"tensor-shape"}, "is 128, and blk.2.ffn_gate_exps.weight is 256 wide"),
    "fewer experts": (metadata(lfm2moe__expert_count=4),
                      {"tensor-shape"}, "is 4, and blk.2.ffn_gate_inp.weight is 8 wide"),
    "more used than there are": (metadata(lfm2moe__expert_used_count=9),
                                 {"metadata-key"}, "is more than the 8 experts"),
    "no experts": (metadata(lfm2moe__expert_count=None), {"metadata-key"}, "is missing"),
    "more dense layers": (metadata(lfm2moe__leading_dense_block_count=3),
                          {"tensor-missing", "tensor-unknown"}, "calls for it"),
    "fewer dense layers": (metadata(lfm2moe__leading_dense_block_count=1),
                           {"tensor-missing", "tensor-unknown"}, "calls for it"),
    "no gate": (Change(names={"blk.3.ffn_gate_inp.weight": None}), {"tensor-missing"},
                "it is missing"),
    "no bias": (Change(names={"blk.3.exp_probs_b.bias": None}), {"tensor-missing"},
                "it is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXTURE)
def test_a_mixture_of_experts_and_its_keys(name: str, mixture: Path, tmp_path: Path) -> None:
    change, ids, words = MIXTURE[name]
    findings = diagnose(rewrite(mixture, tmp_path / "changed.gguf", change)).findings
    errors = {f.id: f for f in findings if f.severity is ERROR}
    assert set(errors) == ids
    assert any(words in f.what for f in errors.values())


def test_a_type_whose_first_build_is_unknown_is_said_to_be(examine: Any, q4: Path) -> None:
    data = np.full((512, GGMLType.Q2_0.row_bytes(256)), 0x11, np.uint8)
    path = q4.with_name("q2_0.gguf")
    rewrite(q4, path, Change(tensors={"blk.0.ffn_up.weight": (GGMLType.Q2_0, data)}))
    facts = diagnose(path).facts
    assert "Q2_0" in facts[-1]
    assert "not known here" in facts[-1]


def test_without_jinja_the_template_is_said_to_be_unexamined(
    q4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)  # as if it were not installed
    environment.environment.cache_clear()
    (finding,) = (f for f in diagnose(q4).findings if f.id.startswith("template"))
    assert finding.id == "template-not-examined"
    assert finding.severity is NOTE
    assert finding.remedy == install_command("run")


@pytest.mark.parametrize("file", each("chat_templates/*.jinja"))
def test_the_real_templates_are_sound(file: Path, q4: Path, tmp_path: Path) -> None:
    """Each renders, keeps the tools and writes BOS once; the small vocabulary lacks tokens."""
    change = metadata(tokenizer__chat_template=file.read_text(encoding="utf-8"))
    ids = {f.id for f in diagnose(rewrite(q4, tmp_path / "real.gguf", change)).findings}
    assert ids <= {"template-token"}


def test_named_templates_are_examined_too(examine: Any) -> None:
    found = examine(metadata(tokenizer__chat_template__tool_use="{{ 1 / 0 }}"))
    assert found["template-does-not-render"].where == f"{TEMPLATE}.tool_use"


def test_the_worst_comes_first(q4: Path, tmp_path: Path) -> None:
    change = metadata(lfm2__feed_forward_length=768, lfm2__context_length=128_000)
    found = diagnose(rewrite(q4, tmp_path / "two.gguf", change)).findings
    order = [list(Severity).index(f.severity) for f in found]
    assert order == sorted(order)
    assert found[0].id == "feed-forward-width"


def test_what_cannot_be_examined_is_refused(q4: Path, tmp_path: Path) -> None:
    (tmp_path / "half.gguf").write_bytes(q4.read_bytes()[:-100])
    with pytest.raises(GGUFError, match="truncated"):
        diagnose(tmp_path / "half.gguf")
    with pytest.raises(OptionError, match="must be one of cpu, cuda"):
        diagnose(q4, backend="cudart")


def test_a_model_in_several_files_lacks_nothing(wide: Path, tmp_path: Path) -> None:
    path = (
        convert(wide, tmp_path / "split.gguf", Recipe("Q4_K_M", split_max_size=300_000))
        .files[0]
        .path
    )
    assert path.name.startswith("split-00001-of-")
    whole = convert(wide, tmp_path / "whole.gguf", "Q4_K_M").files[0].path
    found = [finding.id for finding in diagnose(path).findings]
    assert found == [finding.id for finding in diagnose(whole).findings]
