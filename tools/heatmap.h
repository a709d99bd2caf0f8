/* Pictures of attention weights: rows are queries, columns are keys, darker is more. */
#ifndef ATTN_TOOL_HEATMAP_H
#define ATTN_TOOL_HEATMAP_H

#include <stddef.h>

#include "canvas.h"
#include "labels.h"

/* One head, as large as is useful, with tokens (labels->text NULL: positions) and a scale. */
void heatmap_head(const char *path, const char *title, const float *weights, size_t n_q, size_t n_kv,
                  const struct labels *queries, const struct labels *keys);

/* All heads of a layer, added one after the other. Each has its own scale, up to its largest weight. */
struct heatmap_grid {
    struct canvas canvas;
    size_t n_q, n_kv, columns, panel_width, panel_height;
};

void heatmap_grid_open(struct heatmap_grid *grid, const char *title, size_t n_head, size_t n_q, size_t n_kv);
void heatmap_grid_add(struct heatmap_grid *grid, size_t head, const char *caption, const float *weights);
void heatmap_grid_write(struct heatmap_grid *grid, const char *path);

#endif
