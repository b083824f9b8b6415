"""The samplers of llama.cpp that draw a token, in its own order."""

from __future__ import annotations

from typing import Any

from lfm2gguf.options import Options


def make_chain(llama: Any, options: Options) -> Any:
    """Return a chain that draws a token of candidates; the caller frees it.

    The order is that of ``common_params_sampling`` (``common/common.h`` at 0c1e57098).
    """
    temperature, seed = float(options.temperature), int(options.seed or 0)
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    spread, exponent = float(options.dynatemp_range), float(options.dynatemp_exponent)
    xtc = float(options.xtc_probability), float(options.xtc_threshold), 1, seed
    for wanted, make, arguments in (
        (options.top_n_sigma > 0, llama.llama_sampler_init_top_n_sigma, (options.top_n_sigma,)),
        (options.top_k > 0, llama.llama_sampler_init_top_k, (int(options.top_k),)),
        (options.typical_p < 1, llama.llama_sampler_init_typical, (options.typical_p, 1)),
        (options.top_p < 1, llama.llama_sampler_init_top_p, (float(options.top_p), 1)),
        (options.min_p > 0, llama.llama_sampler_init_min_p, (float(options.min_p), 1)),
        (options.xtc_probability > 0, llama.llama_sampler_init_xtc, xtc),
        (spread > 0, llama.llama_sampler_init_temp_ext, (temperature, spread, exponent)),
        (spread <= 0, llama.llama_sampler_init_temp, (temperature,)),
        (True, llama.llama_sampler_init_dist, (seed,)),
    ):
        if wanted and temperature > 0:
            llama.llama_sampler_chain_add(chain, make(*arguments))
    return chain
