"""One llama.cpp with a model, which bench/llamacpp-model asks for times: a line "prompt N" or "generate N AFTER" on stdin,
seconds on stdout.

    llama_child.py MODEL KV THREADS CONTEXT PLUGIN        (PLUGIN: - for none)
"""

import os
import sys
import time

import llama_cpp

from peer.ggml import Functions

model, kv, threads, context, plugin = sys.argv[1:]
if plugin != "-" and not Functions().ggml_backend_load(os.fsencode(plugin)):
    sys.exit("the plugin is not loaded")
kv = getattr(llama_cpp, "GGML_TYPE_" + kv.upper())
llama = llama_cpp.Llama(model, n_ctx=int(context), n_batch=512, n_threads=int(threads), n_threads_batch=int(threads),
                        flash_attn=True, type_k=kv, type_v=kv, verbose=False)
words = llama.tokenize(b"It was a bright cold day in April, and the clocks were striking thirteen. " * 400)
filled = 0


def prompt(n, at=0):
    global filled
    if at == 0:
        llama.reset()
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(llama._ctx.ctx), True)
    start = time.perf_counter()
    llama.eval(words[at:at + n])
    filled = at + n
    return time.perf_counter() - start


print("ready", flush=True)
for line in sys.stdin:
    what, n, *after = line.split()
    if what == "prompt":
        seconds = prompt(int(n))
    else:
        if filled < int(after[0]):
            prompt(int(after[0]))
        start = time.perf_counter()
        for i in range(int(n)):
            llama.eval([words[i]])
        seconds = time.perf_counter() - start
        filled += int(n)
        llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(llama._ctx.ctx), 0, int(after[0]), -1)
        llama.n_tokens = filled = int(after[0])
    print(seconds, flush=True)
