"""The plugin in one process with several models, contexts and threads, shifted contexts, drafts and embeddings.

    robust.py MODEL PLUGIN OUT.npz        (PLUGIN: - for none)

Writes what test_models.py compares between a run with the plugin and one without; what must hold with the plugin alone is
asserted here.
"""

import os
import pathlib
import sys
import threading

import llama_cpp
import numpy as np
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))

from peer.ggml import Functions  # noqa: E402

TYPES = llama_cpp.GGML_TYPE_F16, llama_cpp.GGML_TYPE_Q8_0
PROMPT = (b"In a small town by the sea there lived a keeper of a lighthouse. Every evening the keeper of the lighthouse "
          b"climbed the stairs, lit the lamp and wrote down which ships")


def open_model(model, **options):
    options = {"n_ctx": 512, "n_threads": 2, "n_threads_batch": 2, "flash_attn": True} | options
    return llama_cpp.Llama(model, verbose=False, logits_all=True, **options)


def tokens_of(llama, n=24):
    out = []
    llama.reset()
    for token in llama.generate(llama.tokenize(PROMPT), temp=0.0):
        out.append(token)
        if len(out) == n:
            return np.array(out)


def scores_of(llama, tokens, piece):
    llama.reset()
    for at in range(0, len(tokens), piece):
        llama.eval(tokens[at:at + piece])
    return llama.scores[:len(tokens)].copy()


def shifted(llama):
    """Logits behind a context whose middle was dropped, its later keys moved."""
    tokens = llama.tokenize(PROMPT)
    llama.reset()
    llama.eval(tokens)
    memory = llama_cpp.llama_get_memory(llama._ctx.ctx)
    assert llama_cpp.llama_memory_seq_rm(memory, 0, 4, 12)
    llama_cpp.llama_memory_seq_add(memory, 0, 12, -1, -8)
    llama.n_tokens -= 8
    llama.eval(tokens[:3])
    return llama.scores[llama.n_tokens - 1].copy()


def together(model, alone):
    """Two models in two threads, one context each; and models opened and closed meanwhile."""
    results = {}

    def work(name):
        results[name] = tokens_of(open_model(model, n_threads=1 + name, n_threads_batch=1 + name))

    threads = [threading.Thread(target=work, args=(name,)) for name in (0, 1)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        open_model(model).close()
    for thread in threads:
        thread.join()
    return all(np.array_equal(results[name], alone) for name in (0, 1))


def main():
    model, plugin, out = sys.argv[1:]
    with_plugin = plugin != "-"
    if with_plugin and not Functions().ggml_backend_load(os.fsencode(plugin)):
        sys.exit("the plugin is not loaded")
    llama = open_model(model)
    result = {"tokens": tokens_of(llama), "shifted": shifted(llama)}
    whole = scores_of(llama, llama.tokenize(PROMPT), 512)
    if with_plugin:  # the same bits in any pieces: ggml's other operations keep to a row
        for piece in (1, 7):
            assert np.array_equal(scores_of(llama, llama.tokenize(PROMPT), piece), whole), piece
        assert together(model, result["tokens"])
    llama.close()
    mixed = open_model(model, type_k=TYPES[1], type_v=TYPES[0])
    result["mixed"] = scores_of(mixed, mixed.tokenize(PROMPT), 512)
    mixed.close()
    drafting = open_model(model, draft_model=LlamaPromptLookupDecoding(num_pred_tokens=5))
    result["drafted"] = tokens_of(drafting)
    if with_plugin:
        assert np.array_equal(result["drafted"], result["tokens"])
    drafting.close()
    embedder = open_model(model, embedding=True, pooling_type=llama_cpp.LLAMA_POOLING_TYPE_MEAN)
    llama_cpp.llama_set_causal_attn(embedder._ctx.ctx, False)  # as encoders are
    result["embeddings"] = np.array(embedder.embed(["The sky is blue.", PROMPT.decode()]))
    embedder.close()
    np.savez(out, whole=whole, **result)


main()
