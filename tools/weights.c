/* The two formats under one roof. */
#include "weights.h"

#include <stdlib.h>
#include <string.h>

#include "safetensors.h"
#include "tool.h"

static int is_gguf(const struct file *file) {
    size_t length = strlen(file->path);
    char start[4] = "";

    if (file->bytes >= sizeof start) {
        file_read(file, 0, start, sizeof start);
    }
    return memcmp(start, "GGUF", sizeof start) == 0 ||
           (length > 5 && strcmp(file->path + length - 5, ".gguf") == 0);
}

/* GGUF has the fastest size first. */
static struct tensor describe(const struct gguf *gguf, const struct gguf_tensor *from) {
    struct tensor t = {.dtype = DTYPE_OTHER, .rank = from->rank, .count = from->rows * from->size[0]};
    attn_dtype dtype;

    t.name =
        print_text("%.*s", (int)(from->name.bytes < 1 << 16 ? from->name.bytes : 1 << 16), from->name.text);
    t.type_name = gguf_type_name(from->type);
    if (gguf_attn_type(from->type, &dtype)) {
        t.dtype = (int)dtype;
    }
    for (size_t i = 0; i < t.rank; i++) {
        t.size[i] = from->size[t.rank - 1 - i];
    }
    t.begin = (size_t)((const unsigned char *)from->data - gguf->map);
    t.end = t.begin + from->rows * from->row_bytes;
    return t;
}

static void open_gguf(struct weights *w) {
    char error[512] = "";

    if (!gguf_open(&w->gguf, w->file.path, error, sizeof error)) {
        die("%s", error);
    }
    w->is_gguf = 1;
    w->n_tensors = w->gguf.n_tensors;
    w->tensors = get_array(w->n_tensors + 1, sizeof *w->tensors, w->file.path);
    for (size_t i = 0; i < w->n_tensors; i++) {
        w->tensors[i] = describe(&w->gguf, &w->gguf.tensors[i]);
    }
    if (!gguf_text(&w->gguf, "general.architecture", &w->model) || w->model.bytes > 100) {
        w->model = (struct gguf_text){"", 0};
    }
}

void weights_open(struct weights *w, const char *path) {
    memset(w, 0, sizeof *w);
    file_open(&w->file, path, "--weights");
    if (is_gguf(&w->file)) {
        open_gguf(w);
    } else {
        st_read(w);
    }
}

const struct tensor *weights_find(const struct weights *w, const char *name) {
    for (size_t i = 0; i < w->n_tensors; i++) {
        if (strcmp(w->tensors[i].name, name) == 0) {
            return &w->tensors[i];
        }
    }
    return NULL;
}

/* The key with the model's name in front; NULL where there is no metadata. */
static char *whole_key(const struct weights *w, const char *key) {
    return w->is_gguf ? print_text("%.*s.%s", (int)w->model.bytes, w->model.text, key) : NULL;
}

int weights_has(const struct weights *w, const char *key) {
    char *whole = whole_key(w, key);
    int has = whole && gguf_value(&w->gguf, whole);

    release(whole);
    return has;
}

size_t weights_count(const struct weights *w, const char *key, size_t layer) {
    char *whole = whole_key(w, key);
    size_t count;

    if (!whole || !gguf_count_at(&w->gguf, whole, layer, &count)) {
        count = 0;
    }
    release(whole);
    return count;
}

/* Types of the reader's own: row by row as f32. */
static attn_tensor read_others(const struct weights *w, const struct tensor *t) {
    const struct gguf_tensor *from = w->is_gguf ? gguf_tensor(&w->gguf, t->name) : NULL;
    float *data;

    if (!from || !gguf_has_floats(from->type)) {
        die("%s: tensor %.200s is %.20s; convert it to F32, F16 or BF16%s", w->file.path, t->name,
            t->type_name, w->is_gguf ? " or Q8_0, say with llama-quantize" : "");
    }
    data = get_array(t->count, sizeof *data, t->name);
    dtype_check(gguf_floats(dtype_context(), from, 0, from->rows, data), t->name);
    return attn_tensor_contiguous(data, ATTN_F32, 1, 1, from->rows, from->size[0]);
}

attn_tensor weights_read(const struct weights *w, const struct tensor *t) {
    size_t columns = t->rank ? t->size[t->rank - 1] : 1;
    void *data;

    if (t->dtype < 0) {
        return read_others(w, t);
    }
    data = get_memory(t->end - t->begin, t->name);
    file_read(&w->file, t->begin, data, t->end - t->begin);
    return attn_tensor_contiguous(data, (attn_dtype)t->dtype, 1, 1, columns ? t->count / columns : 0,
                                  columns);
}

float *weights_floats(const struct weights *w, const struct tensor *t) {
    attn_tensor stored = weights_read(w, t);
    float *data = dtype_floats(&stored, t->name);

    if (data != stored.data) {
        release(stored.data);
    }
    return data;
}

void weights_close(struct weights *w) {
    file_close(&w->file);
    if (w->is_gguf) {
        gguf_close(&w->gguf);
    }
    release(w->tensors);
}
