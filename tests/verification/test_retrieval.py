"""Retrieval models are judged by their vectors and rankings."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lfm2gguf
from lfm2gguf.errors import GGUFError, OptionError
from lfm2gguf.gguf_file import GGUFFile
from lfm2gguf.verification import (
    TYPE_LIMITS,
    Engine,
    Limits,
    Material,
    Session,
    Verification,
)
from lfm2gguf.verification.report.data import dumps
from lfm2gguf.verification.report.junit import junit
from lfm2gguf.verification.report.markdown import markdown
from lfm2gguf.verification.report.plot import draw
from lfm2gguf.verification.verdict.baseline import drift_gates
from tests.making.lanes import slow_but
from tests.making.models import EXAMPLE
from tests.making.retrieval_example import (
    BERT,
    CAUSAL,
    KINDS,
    make_example,
    projection,
    save_dense,
    set_architecture,
    set_pooling,
)
from tests.making.verdicts import failed, judged
from tests.verification import faults
from tests.verification.faults import Editor, flip
from tests.verification.test_command import run, start

NUMPY = Engine("numpy")
SETTINGS, WEIGHTS = "settings of the checkpoint", "weights near the checkpoint's"
VECTORS = {"mean cosine", "cosine of the worst text", "rank correlation", "same among the best 10"}


@pytest.fixture(scope="module", params=slow_but(["cls"], KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def source(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_example(KINDS[kind], tmp_path_factory.mktemp("retrieval") / "example")


@pytest.fixture(scope="module")
def reference(source: Path) -> Session:
    return Session(source, Material(chunks=8))


@pytest.mark.slow
def test_correct_files_of_every_type_pass(reference: Session, source: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    for file in lfm2gguf.convert(source, tmp_path, list(TYPE_LIMITS), jobs=1).files:
        result = judged(reference, file.path, engine="llama.cpp", three_way=True)
        assert result.passed, (file.type, result.failures)
        assert result.culprit == ""
        allowed = 1 - TYPE_LIMITS[file.type].similarity.min_cosine
        assert 1 - result.similarity.cosine.value < allowed / 1.4
        if file.type == "BF16":  # the checkpoint is bf16: the file holds the same weights
            same = result.stages["quantization"]
            assert min(same.cosines) > 1 - 2e-6  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("type", ["Q4_1", "IQ4_XS", "Q3_K_M", "Q2_K", "TQ2_0"])
def test_correct_files_of_fewer_bits_pass(
    reference: Session, source: Path, tmp_path: Path, type: str
) -> None:
    [file] = lfm2gguf.convert(source, tmp_path / "a.gguf", type, jobs=1).files
    result = judged(reference, file.path)
    assert result.passed, result.failures


def swapped_layers(e: Editor) -> None:
    """Two layers of convolution trade places."""
    kinds = e.checkpoint.config["layer_types"]
    a, b = [i for i, kind in enumerate(kinds) if kind == "conv"][:2]
    for name in e.checkpoint.tensors:
        if name.startswith(f"layers.{a}."):
            e.swap(name, name.replace(f".{a}.", f".{b}.", 1))


IN_THE_WEIGHTS = {
    "layers swapped": swapped_layers,
    "one tensor's rows permuted": faults.permuted_rows,
    "a conv kernel reversed": faults.reversed_kernel,
    "the embedding shifted by a row": faults.shifted_embedding,
}


@pytest.mark.parametrize("type", slow_but(["Q8_0"], ["Q8_0", "Q4_K_M", "Q2_K"]))
@pytest.mark.parametrize("fault", IN_THE_WEIGHTS)
def test_a_fault_in_the_weights_is_caught(
    reference: Session, source: Path, tmp_path: Path, fault: str, type: str
) -> None:
    path = faults.convert_with(IN_THE_WEIGHTS[fault], source, tmp_path, type)
    result = judged(reference, path)
    assert WEIGHTS in failed(result)
    if type == "Q8_0":  # there the vectors show it too
        assert failed(result) & VECTORS


def without_dense(e: Editor) -> None:
    shutil.rmtree(e.folder / "1_Dense")
    modules = json.loads((e.folder / "modules.json").read_text())
    (e.folder / "modules.json").write_text(json.dumps(modules[:1]))


def without_pooling(e: Editor) -> None:
    (e.folder / "modules.json").write_text("[]")


IN_THE_SETTINGS = [
    ("colbert", "causal", lambda e: set_architecture(e.folder, CAUSAL), "bidirectional is False"),
    ("cls", "causal", lambda e: set_architecture(e.folder, CAUSAL), "bidirectional is False"),
    ("last", "bidirectional", lambda e: set_architecture(e.folder, BERT), "bidirectional is True"),
    ("cls", "mean pooling", lambda e: set_pooling(e.folder, "mean_tokens"), "pooling is mean"),
    ("mean", "cls pooling", lambda e: set_pooling(e.folder, "cls_token"), "pooling is cls"),
    ("last", "mean pooling", lambda e: set_pooling(e.folder, "mean_tokens"), "pooling is mean"),
    ("cls", "no pooling", without_pooling, "pooling is none"),
    ("colbert", "no dense layer", without_dense, "dense is False"),
    ("causal colbert", "no dense layer", without_dense, "dense is False"),
]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["llama.cpp", "numpy"])
@pytest.mark.parametrize(("of", "name", "fault", "said"), IN_THE_SETTINGS)
def test_a_fault_in_the_settings_is_caught(
    of: str, name: str, fault: Any, said: str, engine: str, tmp_path: Path
) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    source = make_example(KINDS[of], tmp_path / "example")
    reference = Session(source, Material(chunks=4))
    path = faults.convert_with(fault, source, tmp_path / "faulty", "Q8_0")
    result = judged(reference, path, engine=engine)
    gate = next(gate for gate in result.failures if gate.name == SETTINGS)
    assert said in gate.detail
    assert failed(result) & VECTORS, name


def test_another_dense_layer_is_caught(tmp_path: Path) -> None:
    source = make_example(KINDS["colbert"], tmp_path / "example")
    reference = Session(source, Material(chunks=4))

    def fault(e: Editor) -> None:
        matrix = projection(e.checkpoint.config["hidden_size"], 128)
        save_dense(e.folder, np.roll(matrix, 1, axis=1))

    result = judged(reference, faults.convert_with(fault, source, tmp_path / "faulty", "Q8_0"))
    gate = next(gate for gate in result.failures if gate.name == WEIGHTS)
    assert gate.detail.startswith("dense_2.weight")
    assert failed(result) >= VECTORS - {"same among the best 10"}


def test_one_bit_of_a_scale_is_caught(reference: Session, source: Path, tmp_path: Path) -> None:
    path = lfm2gguf.convert(source, tmp_path / "f.gguf", "Q8_0", jobs=1).files[0].path
    assert judged(reference, path).passed
    flip(path, "blk.1.ffn_gate.weight", 100, 1, 0x04)
    assert failed(judged(reference, path)) == {WEIGHTS}


def test_not_a_number_fails_and_is_reported(
    reference: Session, source: Path, tmp_path: Path
) -> None:
    path = lfm2gguf.convert(source, tmp_path / "f.gguf", "F32", jobs=1).files[0].path
    info = GGUFFile.open(path).tensors["blk.0.ffn_norm.weight"]
    with path.open("r+b") as file:
        file.seek(info.offset)
        file.write(np.float32(np.nan).tobytes())
    result = judged(reference, path)
    assert {"finite vectors", *VECTORS} <= failed(result)
    assert json.loads(dumps([result]))["passed"] is False


# --- as the others ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_example(KINDS["cls"], tmp_path_factory.mktemp("reports") / "example")


@pytest.fixture(scope="module")
def gguf(pooled: Path) -> dict[str, Path]:
    files = lfm2gguf.convert(pooled, pooled.parent, ["BF16", "Q8_0", "Q4_0"], jobs=1).files
    return {file.type: file.path for file in files}


@pytest.fixture(scope="module")
def result(pooled: Path, gguf: dict[str, Path]) -> Verification:
    return lfm2gguf.verify(gguf["Q8_0"], pooled, material=Material(chunks=4), engine=NUMPY)


def test_prefixes_are_in_what_is_read(pooled: Path) -> None:
    texts = [text for text, _ in Session(pooled, Material(chunks=2)).prepared.texts[0].encoded]
    assert all(text.startswith("query: ") for text in texts[::2])
    assert all(text.startswith("document: ") for text in texts[1::2])


def test_every_report_is_written(result: Verification) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = (resources("lfm2gguf.verification") / "report.schema.json").read_text()
    report = json.loads(dumps([result]))
    jsonschema.validate(report, json.loads(schema), cls=jsonschema.Draft202012Validator)
    text = markdown([result])
    assert "16 queries and 16 documents of python-docs" in text
    assert "| rank correlation |" in text
    assert b'name="mean cosine"' in junit([result])
    assert draw([result], ".svg").count(b"<polyline") == 2


def test_drift_is_seen(result: Verification, tmp_path: Path) -> None:
    path, report = tmp_path / "baseline.json", json.loads(dumps([result]))
    path.write_text(json.dumps(report))
    assert all(gate.passed for gate in drift_gates(path, result))
    report["files"][0]["stages"]["shipped"]["rank_correlation"]["value"] -= 0.002
    path.write_text(json.dumps(report))
    assert [gate.passed for gate in drift_gates(path, result)] == [True, False]


def test_a_gguf_can_be_the_reference(gguf: dict[str, Path]) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    assert lfm2gguf.verify(
        gguf["Q8_0"], gguf["BF16"], material=Material(chunks=2), engine=NUMPY
    ).passed


def test_the_kinds_of_model_are_not_compared(
    pooled: Path, gguf: dict[str, Path], files: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(GGUFError, match="it is a retrieval model, and the reference is not"):
        lfm2gguf.verify(gguf["Q8_0"], EXAMPLE, material=Material(chunks=1), engine=NUMPY)
    plain = lfm2gguf.verify(files["Q8_0"], pooled, material=Material(chunks=1), engine=NUMPY)
    assert SETTINGS in failed(plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limits": Limits(max_kld=0.1)}, "does not apply to a retrieval model"),
        ({"material": Material(chat="c.jsonl")}, "is a retrieval model; chat"),
        ({"material": Material("short.txt")}, "is too short"),
    ],
)
def test_what_has_no_meaning_is_refused(
    pooled: Path,
    gguf: dict[str, Path],
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("a few words " * 50)
    with pytest.raises(OptionError, match=message):
        lfm2gguf.verify(gguf["Q8_0"], pooled, **options)


def test_limits_of_vectors_are_none_of_a_text_model(files: dict[str, Path]) -> None:
    with pytest.raises(OptionError, match=r"\(--min-rank\): does not apply to a text model"):
        lfm2gguf.verify(files["Q8_0"], EXAMPLE, limits=Limits(min_rank=0.9))


@pytest.mark.slow
def test_the_command_judges_a_ladder(pooled: Path, gguf: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    report = tmp_path / "report.json"
    done = run(pooled.parent, "-r", pooled, "--chunks", 4, "--three-way", "--json-file", report)
    assert done.returncode == 0, done.stderr
    assert "rank correlation" in done.stdout
    found = json.loads(report.read_text())["files"]
    assert [file["type"] for file in found] == ["BF16", "Q8_0", "Q4_0"]
    assert set(found[0]["stages"]) == {"shipped", "quantization", "runtime"}
    done = run(gguf["Q4_0"], "-r", pooled, "--min-cosine", "0.9999")
    assert done.returncode == 1
    assert "FAILED: mean cosine" in done.stdout


@pytest.mark.slow
def test_convert_can_verify_it(pooled: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    done = start("convert", pooled, "-t", "Q8_0", "-o", tmp_path / "a.gguf", "--verify")
    assert done.returncode == 0, done.stderr
    assert "rank correlation" in done.stdout
