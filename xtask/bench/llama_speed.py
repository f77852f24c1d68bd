"""Measures llama.cpp's prefill and decode speed on one GGUF file; prints one JSON object.

Run in a virtual environment that has llama-cpp-python or ik-llama-cpp-python. Tokens are fed through the C API in
batches, as llama-bench does: no sampling, no text, so that the engine alone is measured.
"""

import argparse
import importlib.metadata
import json
import time


class LlamaCpp:
    package = "llama-cpp-python"

    def __init__(self, model, threads, context):
        import llama_cpp

        self.api = llama_cpp
        self.llama = llama_cpp.Llama(
            model_path=model,
            n_ctx=context,
            n_batch=512,
            n_ubatch=512,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=True,
            verbose=False,
        )
        self.context = self.llama.ctx

    def clear(self):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)


class IkLlamaCpp:
    package = "ik-llama-cpp-python"

    def __init__(self, model, threads, context):
        from ik_llama_cpp import _ctypes_api, _internals

        self.api = _ctypes_api
        self.model = _internals.IkModel(model)
        self.holder = _internals.IkContext(self.model, n_ctx=context, n_threads=threads)
        self.context = self.holder.ctx

    def clear(self):
        self.api.llama_kv_cache_clear(self.context)


def decode(engine, tokens, start):
    """Feeds tokens at positions from start in one batch; the logits of the last one are computed."""
    api = engine.api
    batch = api.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for index, token in enumerate(tokens):
        batch.token[index] = token
        batch.pos[index] = start + index
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = 0
        batch.logits[index] = index == len(tokens) - 1
    status = api.llama_decode(engine.context, batch)
    # The engine computes behind the call; the logits are there when it is done.
    api.llama_get_logits_ith(engine.context, len(tokens) - 1)
    api.llama_batch_free(batch)
    if status != 0:
        raise SystemExit(f"llama_decode failed with {status}")


def main():
    engines = {engine.package: engine for engine in (LlamaCpp, IkLlamaCpp)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", choices=engines, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    arguments = parser.parse_args()

    engine = engines[arguments.package](
        arguments.model, arguments.threads, arguments.prefill + arguments.decode + 32
    )
    prompt = [100 + (index * 37) % 20000 for index in range(arguments.prefill)]
    # Pages of the file and the engine's buffers are touched once before anything is timed.
    decode(engine, prompt[:16], 0)
    engine.clear()

    begin = time.perf_counter()
    decode(engine, prompt, 0)
    prefill_s = time.perf_counter() - begin

    engine.clear()
    decode(engine, prompt[:8], 0)
    begin = time.perf_counter()
    for index in range(arguments.decode):
        decode(engine, [prompt[index % len(prompt)]], 8 + index)
    decode_s = time.perf_counter() - begin

    print(
        json.dumps(
            {
                "package": arguments.package,
                "version": importlib.metadata.version(arguments.package),
                "prefill_tokens_per_s": arguments.prefill / prefill_s,
                "decode_tokens_per_s": arguments.decode / decode_s,
            }
        )
    )


main()
