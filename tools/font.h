/* A small bitmap font: printable ASCII, and a box for every other character. */
#ifndef ATTN_TOOL_FONT_H
#define ATTN_TOOL_FONT_H

enum {
    FONT_COLUMNS = 5,
    FONT_ROWS = 9,
    FONT_ADVANCE = 6, /* from one character to the next */
    FONT_HEIGHT = 7,  /* of a capital */
    FONT_FIRST = ' ', /* the first glyph's character */
    FONT_GLYPHS = 96,
    FONT_BOX = FONT_GLYPHS - 1
};

/* Rows from top to bottom; bit 4 is the leftmost column. */
extern const unsigned char font_glyphs[FONT_GLYPHS][FONT_ROWS];

#endif
