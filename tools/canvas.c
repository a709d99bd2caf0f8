/* An RGB picture. */
#include "canvas.h"

#include <math.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

#include "font.h"
#include "tool.h"

enum { SIDE_MAX = 32767 };

void canvas_open(struct canvas *c, size_t width, size_t height) {
    if (width > SIDE_MAX || height > SIDE_MAX) {
        die("--png: the picture would be %zu x %zu pixels; choose one --head, or fewer rows", width, height);
    }
    c->width = width;
    c->height = height;
    c->rgb = get_array(width * height, 3, "picture");
    memset(c->rgb, 255, width * height * 3);
}

void canvas_fill(struct canvas *c, size_t x, size_t y, size_t width, size_t height, struct colour colour) {
    for (size_t j = y; j < y + height && j < c->height; j++) {
        for (size_t i = x; i < x + width && i < c->width; i++) {
            unsigned char *pixel = c->rgb + (j * c->width + i) * 3;

            pixel[0] = colour.r;
            pixel[1] = colour.g;
            pixel[2] = colour.b;
        }
    }
}

void canvas_frame(struct canvas *c, size_t x, size_t y, size_t width, size_t height, struct colour colour) {
    canvas_fill(c, x - 1, y - 1, width + 2, 1, colour);
    canvas_fill(c, x - 1, y + height, width + 2, 1, colour);
    canvas_fill(c, x - 1, y, 1, height, colour);
    canvas_fill(c, x + width, y, 1, height, colour);
}

/* The next character of UTF-8 text as a glyph; malformed bytes count one each. */
static size_t next_glyph(const char **text) {
    const unsigned char *at = (const unsigned char *)*text;
    size_t length = at[0] < 0x80 ? 1 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;

    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            length = 1;
        }
    }
    *text += length;
    if (length == 1) {
        return at[0] >= FONT_FIRST && at[0] < FONT_FIRST + FONT_BOX ? at[0] - FONT_FIRST : FONT_BOX;
    }
    /* U+0120 (byte-level BPE) and U+2581 (SentencePiece) stand for a space before the word. */
    if (memcmp(at, "\xc4\xa0", 2) == 0 || (length == 3 && memcmp(at, "\xe2\x96\x81", 3) == 0)) {
        return '_' - FONT_FIRST;
    }
    return FONT_BOX;
}

static void draw_text(struct canvas *c, size_t x, size_t y, size_t scale, struct colour colour,
                      const char *text, int up) {
    for (size_t n = 0; *text; n += FONT_ADVANCE * scale) {
        const unsigned char *glyph = font_glyphs[next_glyph(&text)];

        for (size_t row = 0; row < FONT_ROWS; row++) {
            for (size_t column = 0; column < FONT_COLUMNS; column++) {
                size_t along = n + column * scale, down = row * scale;

                if (!(glyph[row] >> (FONT_COLUMNS - 1 - column) & 1)) {
                    continue;
                }
                if (!up) {
                    canvas_fill(c, x + along, y + down, scale, scale, colour);
                } else if (y >= along + scale) {
                    canvas_fill(c, x + down, y - along - scale, scale, scale, colour);
                }
            }
        }
    }
}

void canvas_text(struct canvas *c, size_t x, size_t y, size_t scale, struct colour colour, const char *text) {
    draw_text(c, x, y, scale, colour, text, 0);
}

void canvas_text_up(struct canvas *c, size_t x, size_t y, size_t scale, struct colour colour,
                    const char *text) {
    draw_text(c, x, y, scale, colour, text, 1);
}

size_t canvas_text_width(size_t scale, const char *text) {
    size_t n = 0;

    while (*text) {
        next_glyph(&text);
        n++;
    }
    return n ? (n * FONT_ADVANCE - 1) * scale : 0;
}

/* A channel of linear light as an sRGB byte; *clipped is set when it is out of range. */
static unsigned char encode(double light, int *clipped) {
    double value;

    if (light < -1e-4 || light > 1 + 1e-4) {
        *clipped = 1;
    }
    light = fmin(fmax(light, 0), 1);
    value = light <= 0.0031308 ? 12.92 * light : 1.055 * pow(light, 1 / 2.4) - 0.055;
    return (unsigned char)lround(255 * value);
}

/* OKLab's lightness, chroma and hue (Ottosson, 2020) as sRGB. */
static struct colour from_oklch(double lightness, double chroma, double hue, int *clipped) {
    double a = chroma * cos(hue), b = chroma * sin(hue);
    double l = pow(lightness + 0.3963377774 * a + 0.2158037573 * b, 3);
    double m = pow(lightness - 0.1055613458 * a - 0.0638541728 * b, 3);
    double s = pow(lightness - 0.0894841775 * a - 1.2914855480 * b, 3);

    *clipped = 0;
    return (struct colour){encode(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s, clipped),
                           encode(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s, clipped),
                           encode(-0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s, clipped)};
}

struct colour colour_of(double t) {
    const double degree = acos(-1) / 180;
    struct colour colour = {0, 160, 60};
    int clipped = 1;

    if (isnan(t)) {
        return colour;
    }
    t = fmin(fmax(t, 0), 1);
    /* Hue from yellow (100) through orange, red and purple to blue (-75); the chroma rises from none at
     * white, and is lowered where the screen's colours end. */
    for (double chroma = 0.18 * fmin(1, 3 * t); clipped && chroma >= 0; chroma -= 0.005) {
        colour = from_oklch(1 - 0.80 * t, chroma, (100 - 175 * t) * degree, &clipped);
    }
    return colour;
}

struct colour colour_on(double t) {
    unsigned char value = t > 0.42 ? 255 : 0;

    return (struct colour){value, value, value};
}

void canvas_write(const struct canvas *c, const char *path) {
    png_image image = {.version = PNG_IMAGE_VERSION, .format = PNG_FORMAT_RGB};

    image.width = (png_uint_32)c->width;
    image.height = (png_uint_32)c->height;
    if (!png_image_write_to_file(&image, path, 0, c->rgb, 0, NULL)) {
        die("--png: cannot write %s: %s", path, image.message);
    }
}

void canvas_close(struct canvas *c) {
    release(c->rgb);
    c->rgb = NULL;
}
