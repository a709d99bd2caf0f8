/* An RGB picture: rectangles, text, a colour for a weight; written as PNG. */
#ifndef ATTN_TOOL_CANVAS_H
#define ATTN_TOOL_CANVAS_H

#include <stddef.h>

struct colour {
    unsigned char r, g, b;
};

struct canvas {
    size_t width, height;
    unsigned char *rgb;
};

/* White everywhere; dies when the picture would be too large to look at. */
void canvas_open(struct canvas *canvas, size_t width, size_t height);

/* Parts outside the picture are cut off, here and below. */
void canvas_fill(struct canvas *canvas, size_t x, size_t y, size_t width, size_t height,
                 struct colour colour);

/* The outline of a rectangle, one pixel wide, just outside of it. */
void canvas_frame(struct canvas *canvas, size_t x, size_t y, size_t width, size_t height,
                  struct colour colour);

/* UTF-8 text whose capitals' top left corner is (x, y), each pixel of the font scale x scale large. Byte-pair
 * tokenizers' marks for a space become '_'; other characters outside ASCII a box. */
void canvas_text(struct canvas *canvas, size_t x, size_t y, size_t scale, struct colour colour,
                 const char *text);

/* The same text read from bottom to top; (x, y) is the bottom left corner of the whole. */
void canvas_text_up(struct canvas *canvas, size_t x, size_t y, size_t scale, struct colour colour,
                    const char *text);

/* Width in pixels of text at that scale. */
size_t canvas_text_width(size_t scale, const char *text);

/*
 * The colour of t in [0, 1]: from white over yellow, orange and purple to nearly black, its lightness in
 * the OKLab space falling evenly, so that equal steps look equal and the picture survives grey printing.
 * NaN is a green that the scale does not have.
 */
struct colour colour_of(double t);

/* Black or white, whichever can be read on a background of colour_of(t). */
struct colour colour_on(double t);

void canvas_write(const struct canvas *canvas, const char *path);
void canvas_close(struct canvas *canvas);

#endif
