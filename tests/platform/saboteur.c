/*
 * What the suites here must catch: it is no ISA object, but uses ymm registers (on x86-64), exports a name
 * without the prefix, and defines a function weakly. As a program it needs AVX.
 */
void saboteur_fill(float x[8], float value);
void attn_saboteur_weak(float x[8]);

void saboteur_fill(float x[8], float value) {
    for (int i = 0; i < 8; i++) x[i] = value;
#if defined(__x86_64__)
    __asm__ volatile("vmovups (%0), %%ymm0\n\tvmovups %%ymm0, (%0)" : : "r"(x) : "xmm0", "memory");
#endif
}

__attribute__((weak)) void attn_saboteur_weak(float x[8]) { saboteur_fill(x, 2.0f); }

#ifdef SABOTEUR_PROGRAM
int main(void) {
    float x[8];
    saboteur_fill(x, 1.0f);
    return 0;
}
#endif
