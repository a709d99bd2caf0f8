/* Reads the tokens of a text. */
#include "labels.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "tool.h"

enum { FILE_MAX = 16 << 20 };

static void read_json(struct labels *labels, const char *path, const char *option, const char *text,
                      size_t bytes) {
    json_error_t error;
    json_t *root = json_loadb(text, bytes, 0, &error);

    if (!root) {
        die("%s: %s is not JSON: %s", option, path, error.text);
    }
    labels->n = json_array_size(root);
    labels->text = get_array(labels->n, sizeof *labels->text, path);
    for (size_t i = 0; i < labels->n; i++) {
        const char *token = json_string_value(json_array_get(root, i));

        if (!token) {
            die("%s: %s: element %zu is not a string", option, path, i);
        }
        labels->text[i] = copy_text(token);
    }
    json_decref(root);
}

/* The last line may or may not end with a newline. */
static void read_lines(struct labels *labels, const char *path, char *text) {
    size_t most = 1;

    for (const char *c = text; *c; c++) {
        most += *c == '\n';
    }
    labels->text = get_array(most, sizeof *labels->text, path);
    while (*text) {
        size_t length = strcspn(text, "\n");
        int last = text[length] == 0;

        text[length] = 0;
        labels->text[labels->n++] = copy_text(text);
        text += length + !last;
    }
}

void labels_read(struct labels *labels, const char *path, const char *option, size_t n) {
    size_t bytes, length = strlen(path);
    char *text = file_read_text(path, option, FILE_MAX, &bytes);

    memset(labels, 0, sizeof *labels);
    if ((length > 5 && strcmp(path + length - 5, ".json") == 0)) {
        read_json(labels, path, option, text, bytes);
    } else {
        read_lines(labels, path, text);
    }
    release(text);
    if (labels->n != n) {
        die("%s: %s has %zu tokens, the input has %zu rows", option, path, labels->n, n);
    }
}
