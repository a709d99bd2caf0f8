/* The format's types of tensors and of metadata values. */
#include "gguf.h"

/* Elements and bytes of a block of each type that ggml has had a stable layout for. */
static const struct {
    const char *name;
    unsigned short elements, bytes;
} types[] = {
    [0] = {"F32", 1, 4},         [1] = {"F16", 1, 2},         [2] = {"Q4_0", 32, 18},
    [3] = {"Q4_1", 32, 20},      [6] = {"Q5_0", 32, 22},      [7] = {"Q5_1", 32, 24},
    [8] = {"Q8_0", 32, 34},      [9] = {"Q8_1", 32, 40},      [10] = {"Q2_K", 256, 84},
    [11] = {"Q3_K", 256, 110},   [12] = {"Q4_K", 256, 144},   [13] = {"Q5_K", 256, 176},
    [14] = {"Q6_K", 256, 210},   [15] = {"Q8_K", 256, 292},   [16] = {"IQ2_XXS", 256, 66},
    [17] = {"IQ2_XS", 256, 74},  [18] = {"IQ3_XXS", 256, 98}, [19] = {"IQ1_S", 256, 50},
    [20] = {"IQ4_NL", 32, 18},   [21] = {"IQ3_S", 256, 110},  [22] = {"IQ2_S", 256, 82},
    [23] = {"IQ4_XS", 256, 136}, [24] = {"I8", 1, 1},         [25] = {"I16", 1, 2},
    [26] = {"I32", 1, 4},        [27] = {"I64", 1, 8},        [28] = {"F64", 1, 8},
    [29] = {"IQ1_M", 256, 56},   [30] = {"BF16", 1, 2},       [34] = {"TQ1_0", 256, 54},
    [35] = {"TQ2_0", 256, 66},   [39] = {"MXFP4", 32, 17},
};

enum { N_TYPES = sizeof types / sizeof *types };

const char *gguf_type_name(uint32_t type) {
    return type < N_TYPES && types[type].name ? types[type].name : "?";
}

size_t gguf_type_bytes(uint32_t type, size_t *block) {
    *block = type < N_TYPES ? types[type].elements : 0;
    return type < N_TYPES ? types[type].bytes : 0;
}

size_t gguf_value_bytes(uint32_t type) {
    static const unsigned char bytes[GGUF_VALUE_TYPES] = {
        [GGUF_VALUE_U8] = 1,  [GGUF_VALUE_I8] = 1,  [GGUF_VALUE_U16] = 2, [GGUF_VALUE_I16] = 2,
        [GGUF_VALUE_U32] = 4, [GGUF_VALUE_I32] = 4, [GGUF_VALUE_F32] = 4, [GGUF_VALUE_BOOL] = 1,
        [GGUF_VALUE_U64] = 8, [GGUF_VALUE_I64] = 8, [GGUF_VALUE_F64] = 8};

    return type < GGUF_VALUE_TYPES ? bytes[type] : 0;
}

int gguf_attn_type(uint32_t type, attn_dtype *dtype) {
    static const struct {
        enum gguf_type from;
        attn_dtype to;
    } same[] = {{GGUF_F32, ATTN_F32},   {GGUF_F16, ATTN_F16},   {GGUF_BF16, ATTN_BF16},
                {GGUF_Q8_0, ATTN_Q8_0}, {GGUF_Q4_0, ATTN_Q4_0}, {GGUF_Q4_1, ATTN_Q4_1},
                {GGUF_Q4_K, ATTN_Q4_K}, {GGUF_Q6_K, ATTN_Q6_K}};

    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        if (type == (uint32_t)same[i].from) {
            *dtype = same[i].to;
            return 1;
        }
    }
    return 0;
}
