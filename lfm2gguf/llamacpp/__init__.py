"""llama.cpp behind a small, typed surface: the only package that imports llama_cpp.

Everything above speaks of models, contexts, chunks of tokens and NumPy arrays; the C
structures, pointers and log lines stay here. Facts are from llama.cpp commit 0c1e57098
(``include/llama.h``, ``ggml/include/ggml-backend.h``), which llama-cpp-python 0.3.36 vendors.

Objects are not thread-safe: one thread drives a :class:`Context`.

The names are loaded when they are first used: a load that begins ahead waits for no other module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lfm2gguf.deferred import deferred

if TYPE_CHECKING:
    from lfm2gguf.llamacpp.ambiguity import check_grammar
    from lfm2gguf.llamacpp.backend import BACKENDS, Backend
    from lfm2gguf.llamacpp.batch import Chunk, Floats
    from lfm2gguf.llamacpp.bindings import bindings_version
    from lfm2gguf.llamacpp.choices import choice_rules
    from lfm2gguf.llamacpp.context import Context, RefusedBatchError
    from lfm2gguf.llamacpp.device import Device, backends, check_threads, default_threads, devices
    from lfm2gguf.llamacpp.grammar import SchemaRules, json_schema_grammar
    from lfm2gguf.llamacpp.images import check_size
    from lfm2gguf.llamacpp.lazy import LazyGrammar
    from lfm2gguf.llamacpp.library import build_info
    from lfm2gguf.llamacpp.loads import load_ahead
    from lfm2gguf.llamacpp.machine import available_memory
    from lfm2gguf.llamacpp.model import Adapter, Model, Tokens
    from lfm2gguf.llamacpp.probes import probe
    from lfm2gguf.llamacpp.projector import Pixels, Projector
    from lfm2gguf.llamacpp.rpc import serve_devices
    from lfm2gguf.llamacpp.sampling import Sampler
    from lfm2gguf.llamacpp.selection import DeviceReport, choose, overview, report

__all__ = [
    "BACKENDS",
    "Adapter",
    "Backend",
    "Chunk",
    "Context",
    "Device",
    "DeviceReport",
    "Floats",
    "LazyGrammar",
    "Model",
    "Pixels",
    "Projector",
    "RefusedBatchError",
    "Sampler",
    "SchemaRules",
    "Tokens",
    "available_memory",
    "backends",
    "bindings_version",
    "build_info",
    "check_grammar",
    "check_size",
    "check_threads",
    "choice_rules",
    "choose",
    "default_threads",
    "devices",
    "json_schema_grammar",
    "load_ahead",
    "overview",
    "probe",
    "report",
    "serve_devices",
]

__getattr__ = deferred(
    __name__,
    {
        "ambiguity": "check_grammar",
        "backend": "BACKENDS Backend",
        "batch": "Chunk Floats",
        "bindings": "bindings_version",
        "choices": "choice_rules",
        "context": "Context RefusedBatchError",
        "device": "Device backends check_threads default_threads devices",
        "grammar": "SchemaRules json_schema_grammar",
        "images": "check_size",
        "lazy": "LazyGrammar",
        "library": "build_info",
        "loads": "load_ahead",
        "machine": "available_memory",
        "model": "Adapter Model Tokens",
        "probes": "probe",
        "projector": "Pixels Projector",
        "rpc": "serve_devices",
        "sampling": "Sampler",
        "selection": "DeviceReport choose overview report",
    },
)
