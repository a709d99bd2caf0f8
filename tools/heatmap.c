/* Pictures of attention weights. */
#include "heatmap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "font.h"
#include "tool.h"

static const struct colour ink = {30, 30, 40}, faint = {120, 120, 130}, line = {205, 205, 212};

enum { MARGIN = 16, TEXT = 2, LINE = FONT_ROWS * TEXT + 4 };

/* ---- One axis: how many pixels a cell has ------------------------------------------------------------- */

struct axis {
    size_t n;      /* cells */
    size_t cell;   /* pixels of a cell, 1 or more */
    size_t reduce; /* cells that share a pixel, of which the largest is shown; 1 unless cell is 1 */
    size_t pixels;
};

static struct axis axis_make(size_t n, size_t target, size_t largest_cell) {
    struct axis a = {.n = n, .cell = target / n, .reduce = 1};

    a.cell = a.cell > largest_cell ? largest_cell : a.cell;
    if (a.cell == 0) {
        a.cell = 1;
        a.reduce = (n + target - 1) / target;
    }
    a.pixels = (n + a.reduce - 1) / a.reduce * a.cell;
    return a;
}

/* Square cells, unless one side is so much longer that the other would vanish. */
static void axes_make(struct axis *rows, struct axis *keys, size_t n_q, size_t n_kv, size_t target,
                      size_t largest_cell) {
    size_t longer = n_q > n_kv ? n_q : n_kv, shorter = n_q > n_kv ? n_kv : n_q;

    *rows = axis_make(n_q, target, largest_cell);
    *keys = axis_make(n_kv, target, largest_cell);
    if (longer / shorter < 4) {
        size_t scaled = axis_make(longer, target, largest_cell).cell;

        if (rows->reduce == 1 && keys->reduce == 1) {
            *rows = axis_make(n_q, n_q * scaled, scaled);
            *keys = axis_make(n_kv, n_kv * scaled, scaled);
        } else {
            *rows = axis_make(n_q, target * n_q / longer, 1);
            *keys = axis_make(n_kv, target * n_kv / longer, 1);
        }
    }
}

/* ---- The map ------------------------------------------------------------------------------------------ */

/* The largest weight of the cells under a pixel; NaN when one is NaN. */
static double cell_weight(const float *weights, const struct axis *rows, const struct axis *keys, size_t y,
                          size_t x) {
    double top = 0;

    for (size_t i = y * rows->reduce; i < (y + 1) * rows->reduce && i < rows->n; i++) {
        for (size_t j = x * keys->reduce; j < (x + 1) * keys->reduce && j < keys->n; j++) {
            double w = weights[i * keys->n + j];

            if (!(w <= top)) {
                top = w;
            }
            if (isnan(top)) {
                return top;
            }
        }
    }
    return top;
}

static double largest_weight(const float *weights, size_t n) {
    double top = 0;

    for (size_t i = 0; i < n; i++) {
        top = weights[i] > top && isfinite(weights[i]) ? (double)weights[i] : top;
    }
    return top > 0 ? top : 1;
}

/* Lonely pixels and long rows of small weights cannot be seen on a linear scale: where cells are small, the
 * square root of the weight is shown. */
static int is_small(const struct axis *rows, const struct axis *keys) {
    return rows->cell < 8 || keys->cell < 8;
}

static double shade(double share, int small) { return small ? sqrt(share) : share; }

/* The weight in percent, in the middle of its cell, where cells are large enough and it is not 0. */
static void draw_number(struct canvas *c, size_t x, size_t y, size_t cell, double weight, double top) {
    char text[8];
    size_t width;

    if (!(weight >= 0.005)) {
        return;
    }
    snprintf(text, sizeof text, "%.0f", 100 * weight);
    width = canvas_text_width(TEXT, text);
    canvas_text(c, x + (cell - width) / 2, y + (cell - FONT_HEIGHT * TEXT) / 2, TEXT, colour_on(weight / top),
                text);
}

static void draw_map(struct canvas *c, size_t x0, size_t y0, const float *weights, const struct axis *rows,
                     const struct axis *keys, double top) {
    /* A hair line between cells, once there is room for it. */
    size_t gap = rows->cell >= 12 && keys->cell >= 12;

    if (gap) {
        canvas_fill(c, x0, y0, keys->pixels, rows->pixels, line);
    }
    for (size_t y = 0; y < rows->pixels / rows->cell; y++) {
        for (size_t x = 0; x < keys->pixels / keys->cell; x++) {
            double w = cell_weight(weights, rows, keys, y, x);
            size_t left = x0 + x * keys->cell, above = y0 + y * rows->cell;

            canvas_fill(c, left, above, keys->cell - gap, rows->cell - gap,
                        colour_of(shade(w / top, is_small(rows, keys))));
            if (rows->cell >= 36 && keys->cell >= 36) {
                draw_number(c, left, above, keys->cell, w, top);
            }
        }
    }
    canvas_frame(c, x0, y0, keys->pixels, rows->pixels, faint);
}

/* ---- One head ----------------------------------------------------------------------------------------- */

/* What is written along an axis: a token for each cell where a line of text fits it, otherwise positions
 * at round distances. */
struct ticks {
    const struct labels *labels; /* text NULL: positions */
    size_t step, scale, width;
};

static const char *tick_text(const struct ticks *t, size_t i, char *number, size_t bytes) {
    if (t->labels->text) {
        return t->labels->text[i];
    }
    snprintf(number, bytes, "%zu", i);
    return number;
}

static struct ticks ticks_make(const struct labels *labels, const struct axis *axis) {
    static const struct labels none = {0};
    static const size_t round[] = {1, 2, 5};
    struct ticks t = {.labels = labels, .step = 1, .scale = axis->cell >= FONT_ROWS * TEXT ? TEXT : 1};
    char number[24];
    size_t power = 1;

    if (axis->cell < FONT_ROWS) { /* no room for every token */
        t.labels = &none;
        t.scale = TEXT;
        for (size_t i = 0; t.step * axis->cell < 40 * axis->reduce; power *= ++i % 3 ? 1 : 10) {
            t.step = round[i % 3] * power;
        }
    }
    for (size_t i = 0; i < axis->n; i += t.step) {
        size_t width = canvas_text_width(t.scale, tick_text(&t, i, number, sizeof number));

        t.width = width > t.width ? width : t.width;
    }
    t.width = t.width > 320 ? 320 : t.width;
    return t;
}

/* Tokens of the rows end at x, those of the keys start above y. */
static void draw_ticks(struct canvas *c, size_t x0, size_t y0, const struct ticks *t, const struct axis *axis,
                       int is_key) {
    size_t middle = axis->cell / 2, half = FONT_HEIGHT * t->scale / 2;
    char number[24];

    for (size_t i = 0; i < axis->n; i += t->step) {
        size_t at = i / axis->reduce * axis->cell + middle;
        const char *text = tick_text(t, i, number, sizeof number);
        size_t width = canvas_text_width(t->scale, text);

        width = width > t->width ? t->width : width;
        if (is_key) {
            canvas_fill(c, x0 + at, y0 - 5, 1, 4, faint);
            canvas_text_up(c, x0 + at > half ? x0 + at - half : 0, y0 - 8, t->scale, ink, text);
        } else {
            canvas_fill(c, x0 - 5, y0 + at, 4, 1, faint);
            canvas_text(c, x0 - 8 - width, y0 + at > half ? y0 + at - half : 0, t->scale, ink, text);
        }
    }
}

static void draw_scale(struct canvas *c, size_t x, size_t y, size_t height, double top, int small) {
    char text[32];

    for (size_t i = 0; i < height; i++) {
        canvas_fill(c, x, y + i, 20, 1, colour_of(1 - ((double)i + 0.5) / (double)height));
    }
    canvas_frame(c, x, y, 20, height, faint);
    for (size_t i = 0; i <= 4; i++) {
        double t = (double)(4 - i) / 4;

        snprintf(text, sizeof text, "%.3g", top * (small ? t * t : t));
        canvas_fill(c, x + 21, y + (height - 1) * i / 4, 4, 1, faint);
        canvas_text(c, x + 29, y + (height - 1) * i / 4 - FONT_HEIGHT * TEXT / 2, TEXT, ink, text);
    }
}

void heatmap_head(const char *path, const char *title, const float *weights, size_t n_q, size_t n_kv,
                  const struct labels *queries, const struct labels *keys) {
    struct axis rows, columns;
    struct canvas c;
    struct ticks row_ticks, key_ticks;
    double top = largest_weight(weights, n_q * n_kv);
    const char *legend;
    size_t left, above, width, height, bar;

    axes_make(&rows, &columns, n_q, n_kv, 1024, 40);
    legend = rows.reduce * columns.reduce > 1 ? "Row: query. Column: key. A pixel shows its largest weight."
             : rows.cell < 36 || columns.cell < 36 ? "Row: query. Column: key. Colour: weight."
                                                   : "Row: query. Column: key. Numbers: weight in percent.";
    row_ticks = ticks_make(queries, &rows);
    key_ticks = ticks_make(keys, &columns);
    left = MARGIN + row_ticks.width + 8;
    above = MARGIN + 2 * LINE + 8 + key_ticks.width + 8;
    bar = rows.pixels > 160 ? rows.pixels : 160;
    width = left + columns.pixels + MARGIN + 29 + canvas_text_width(TEXT, "0.0625") + MARGIN;
    width = width < canvas_text_width(TEXT, title) + 2 * MARGIN ? canvas_text_width(TEXT, title) + 2 * MARGIN
                                                                : width;
    width = width < canvas_text_width(TEXT, legend) + 2 * MARGIN
                ? canvas_text_width(TEXT, legend) + 2 * MARGIN
                : width;
    height = above + bar + MARGIN;
    canvas_open(&c, width, height);
    canvas_text(&c, MARGIN, MARGIN, TEXT, ink, title);
    canvas_text(&c, MARGIN, MARGIN + LINE, TEXT, faint, legend);
    draw_map(&c, left, above, weights, &rows, &columns, top);
    draw_ticks(&c, left, above, &row_ticks, &rows, 0);
    draw_ticks(&c, left, above, &key_ticks, &columns, 1);
    draw_scale(&c, left + columns.pixels + MARGIN, above, bar, top, is_small(&rows, &columns));
    canvas_write(&c, path);
    canvas_close(&c);
}

/* ---- All heads ---------------------------------------------------------------------------------------- */

void heatmap_grid_open(struct heatmap_grid *g, const char *title, size_t n_head, size_t n_q, size_t n_kv) {
    const char *legend = "Row: query. Column: key. Darkest: the head's largest weight.";
    struct axis rows, keys;
    size_t n_rows, width;

    axes_make(&rows, &keys, n_q, n_kv, 320, 16);
    g->n_q = n_q;
    g->n_kv = n_kv;
    g->columns = (size_t)ceil(sqrt((double)n_head * 4 / 3)); /* a picture about 4 : 3 */
    g->columns = g->columns > n_head ? n_head : g->columns;
    n_rows = (n_head + g->columns - 1) / g->columns;
    g->panel_width = (keys.pixels > 150 ? keys.pixels : 150) + MARGIN;
    g->panel_height = rows.pixels + 2 * LINE + MARGIN;
    width = MARGIN + g->columns * g->panel_width;
    width = width < canvas_text_width(TEXT, title) + 2 * MARGIN ? canvas_text_width(TEXT, title) + 2 * MARGIN
                                                                : width;
    width = width < canvas_text_width(TEXT, legend) + 2 * MARGIN
                ? canvas_text_width(TEXT, legend) + 2 * MARGIN
                : width;
    canvas_open(&g->canvas, width, MARGIN + 2 * LINE + MARGIN + n_rows * g->panel_height);
    canvas_text(&g->canvas, MARGIN, MARGIN, TEXT, ink, title);
    canvas_text(&g->canvas, MARGIN, MARGIN + LINE, TEXT, faint, legend);
}

void heatmap_grid_add(struct heatmap_grid *g, size_t head, const char *caption, const float *weights) {
    size_t x = MARGIN + head % g->columns * g->panel_width;
    size_t y = 2 * MARGIN + 2 * LINE + head / g->columns * g->panel_height;
    struct axis rows, keys;
    char text[64];

    axes_make(&rows, &keys, g->n_q, g->n_kv, 320, 16);
    snprintf(text, sizeof text, "head %zu", head);
    canvas_text(&g->canvas, x, y, TEXT, ink, text);
    canvas_text(&g->canvas, x, y + LINE, 1, faint, caption);
    draw_map(&g->canvas, x + 1, y + LINE + FONT_ROWS + 6, weights, &rows, &keys,
             largest_weight(weights, g->n_q * g->n_kv));
}

void heatmap_grid_write(struct heatmap_grid *g, const char *path) {
    canvas_write(&g->canvas, path);
    canvas_close(&g->canvas);
}
