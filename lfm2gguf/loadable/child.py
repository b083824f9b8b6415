"""Load a file and compute two tokens with it: what may end the process, in a process of its own.

The interpreter runs this file by itself, with the standard library and ctypes only: the imports
of a whole package would take longer than the load. It loads the library while its caller still
reads the file's header, gets the file as one line of JSON on its standard input, and says on its
standard output how far it has come. What it cannot do (no library, refused by llama.cpp with a
message) is not a verdict: the caller will see it, too.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import sys
import types
from typing import Any

TOKENS, CONTEXT, SEQUENCES = 2, 64, 2
TEXT = "The cat<|im_end|>\n"
LOADED, COMPUTED = b"loaded\n", b"computed\n"


def main() -> None:
    """Load the file that standard input names, and its projector."""
    sys.path[:] = json.loads(sys.argv[1])
    _no_core_dumps()
    said = os.dup(1)
    os.dup2(2, 1)  # what C code prints is no word of this one
    llama: Any = _module("llama_cpp")
    llama.llama_backend_init()
    if not (line := sys.stdin.readline()):
        return  # the caller has refused the file, or ended
    request = json.loads(line)
    params = llama.llama_model_default_params()
    none = (ctypes.c_void_p * 1)(None)
    params.devices, params.n_gpu_layers = ctypes.cast(none, ctypes.c_void_p), 0
    params.use_extra_bufts = False  # repacking weights takes longer than all the rest
    model = llama.llama_model_load_from_file(os.fsencode(request["file"]), params)
    if not model:
        return
    vocab = llama.llama_model_get_vocab(model)
    for find in (llama.llama_vocab_bos, llama.llama_vocab_eos):
        if (token := find(vocab)) >= 0:
            llama.llama_vocab_get_text(vocab, token)
    text, ids = TEXT.encode(), (ctypes.c_int32 * CONTEXT)()
    llama.llama_tokenize(vocab, text, len(text), ids, CONTEXT, True, True)
    os.write(said, LOADED)
    for embeddings in request["embeddings"]:
        _compute(llama, model, embeddings)
    if request["projector"]:
        mtmd: Any = _module("mtmd_cpp")
        settings = mtmd.mtmd_context_params_default()
        settings.use_gpu, settings.warmup = False, True
        mtmd.mtmd_init_from_file(os.fsencode(request["projector"]), model, settings)
    os.write(said, COMPUTED)


def _compute(llama: Any, model: Any, embeddings: bool) -> None:
    """Decode tokens in a context such as a runner's, or make their embeddings."""
    params = llama.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT
    params.n_seq_max, params.kv_unified = SEQUENCES, True
    # More would spin where they wait for each other, and the caller loads the file meanwhile.
    params.n_threads = params.n_threads_batch = 1
    params.embeddings, params.offload_kqv, params.op_offload = embeddings, False, False
    context = llama.llama_init_from_model(model, params)
    if not context:
        return
    ids = (ctypes.c_int32 * TOKENS)(*range(TOKENS))
    llama.llama_decode(context, llama.llama_batch_get_one(ids, TOKENS))
    llama.llama_synchronize(context)
    llama.llama_free(context)


def _module(name: str) -> Any:
    """Import one of llama-cpp-python's modules of C functions, without what it is packed with."""
    if "llama_cpp" not in sys.modules:
        found = importlib.util.find_spec("llama_cpp")
        if found is None:
            sys.exit(0)
        package = types.ModuleType("llama_cpp")
        package.__path__ = list(found.submodule_search_locations or [])
        sys.modules["llama_cpp"] = package
    return importlib.import_module(f"llama_cpp.{name}")


def _no_core_dumps() -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
