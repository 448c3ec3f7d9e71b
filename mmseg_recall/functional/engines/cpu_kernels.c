/* The per-pixel losses on blocks of float32 logits; called from cpu_library.py.
 *
 * A block is some adjacent pixels of some images, with their labels. It is worked on in strips that
 * fit the cache. A strip's softmax is computed once, vectorised over the pixels, and used up on the
 * spot: nothing of the size of the block is kept.
 *
 * NaN and infinity mean what they mean in torch. Every function but the backward ones returns the
 * number of labels that are neither in [0, num_classes) nor ignored, all return -1 without memory.
 */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STRIP 512    /* pixels */
#define VECTOR 16        /* a strip is a multiple of it */
#define STRIP_SIZE 16384 /* logits: 64 KiB */

#if defined(_WIN32)
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED
#endif
/* One build for all processors: the loader takes the widest vectors that this one has. */
#if defined(__x86_64__) && defined(__GLIBC__) && \
    (defined(__clang__) ? __clang_major__ >= 18 : __GNUC__ >= 12)
#define KERNEL __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"))) int64_t
#else
#define KERNEL EXPORTED int64_t
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(64)))
/* clang wants a constant where gcc takes an argument of an inlined function. */
#define PREFETCH(address, to_write) \
    ((to_write) ? __builtin_prefetch(address, 1, 2) : __builtin_prefetch(address, 0, 2))
#else
#define INLINE static inline
#define ALIGNED
#define PREFETCH(address, to_write) (void)(address)
#endif

/* Tells of which source this is the build: setup.py defines it. */
EXPORTED int32_t source_checksum(void) { return (int32_t)SOURCE_CHECKSUM; }

/* cpu_library.py has the same. */
typedef struct {
    const float *x; /* [image * image_stride + class * class_stride + pixel] */
    int64_t image_stride, class_stride;
    int64_t num_images, num_classes, num_pixels;
    const int64_t *target; /* [image * row + pixel], as all that has one number a pixel */
    int64_t row;
    int64_t has_ignore, ignore_index;
} Block;

typedef struct {
    ALIGNED int32_t label[MAX_STRIP]; /* -1 where the pixel takes no part */
    ALIGNED float top[MAX_STRIP];     /* the largest logit */
    ALIGNED int32_t arg[MAX_STRIP];   /* its class */
    ALIGNED float sum[MAX_STRIP];     /* of e */
    ALIGNED float rest[MAX_STRIP];    /* x[label] - top */
    float *e;                         /* exp(x - top), [class * length + pixel] */
    float *more;                      /* as many numbers for other use */
    int64_t length;                   /* the most pixels of a strip */
    void *memory;
    int64_t image, start, n; /* where it is: n pixels of the image */
    int64_t at;              /* of its labels */
    const float *x;          /* of its logits */
} Strip;

INLINE int32_t bits_of(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINE float float_of(int32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* exp(x) for x <= 0 to 1 ulp; 0 where it is no normal number; NaN of NaN, whose other bits would
 * else be shifted into the exponent. */
INLINE float exp_of(float x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: what is added to it is rounded to integer */
    float shifted = x * 1.44269504f + magic;
    float n = shifted - magic;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 0.00138144667f;
    p = p * r + 0.00836878043f;
    p = p * r + 0.0416683942f;
    p = p * r + 0.166665201f;
    p = p * r + 0.499999934f;
    p = p * (r * r) + r + 1.0f;
    float y = float_of((int32_t)((uint32_t)bits_of(p) + ((uint32_t)bits_of(shifted) << 23)));
    y = x < -87.3f ? 0.0f : y;
    return x == x ? y : x;
}

/* log(x) for finite x >= 1 to 1 ulp; NaN of NaN. */
INLINE float log_of(float x) {
    int32_t n = (bits_of(x) - 0x3f3504f3) >> 23; /* of sqrt(1/2) */
    float f = float_of(bits_of(x) - n * 0x800000) - 1.0f;
    float p = -0.0763449302f;
    p = p * f + 0.127615756f;
    p = p * f - 0.131601831f;
    p = p * f + 0.142017582f;
    p = p * f - 0.166233573f;
    p = p * f + 0.200012269f;
    p = p * f - 0.25000821f;
    p = p * f + 0.333333317f;
    float y = p * (f * f * f) - (float)n * 2.12194440e-4f - 0.5f * (f * f) + f;
    return x == x ? y + (float)n * 0.693359375f : x;
}

INLINE int allocate(Strip *s, int64_t num_classes) {
    int64_t length = STRIP_SIZE / num_classes / VECTOR * VECTOR;
    s->length = length < VECTOR ? VECTOR : length > MAX_STRIP ? MAX_STRIP : length;
    s->image = s->start = s->n = 0;
    s->memory = malloc(sizeof(float) * (size_t)(2 * num_classes * s->length + VECTOR));
    s->e = (float *)(((uintptr_t)s->memory + 63) / 64 * 64); /* no vector across cache lines */
    s->more = s->e + num_classes * s->length;
    return s->memory != NULL;
}

/* Goes to the next strip of a block; false after the last. */
INLINE int next_strip(Strip *s, const Block *b) {
    s->start += s->n;
    if (s->start >= b->num_pixels) {
        s->start = 0;
        s->image += 1;
    }
    s->n = b->num_pixels - s->start < s->length ? b->num_pixels - s->start : s->length;
    s->at = s->image * b->row + s->start;
    s->x = b->x + s->image * b->image_stride + s->start;
    return s->image < b->num_images;
}

/* Labels of a strip; returns how many of them mean nothing. */
INLINE int64_t read_labels(Strip *s, const Block *b) {
    const int64_t *target = b->target + s->at;
    int64_t unknown = 0;
    for (int64_t i = 0; i < s->n; i++) {
        int64_t known = (target[i] >= 0) & (target[i] < b->num_classes);
        int64_t ignored = b->has_ignore & (target[i] == b->ignore_index);
        s->label[i] = (known & !ignored) ? (int32_t)target[i] : -1;
        unknown += !(known | ignored);
    }
    return unknown;
}

/* Classes taken at once, for what is kept per pixel to be read and written less often. */
#define FEW 4

/* Copies the logits of `few` classes together, because classes lie a power of two apart often
 * enough to evict each other from the cache, and finds the largest. */
INLINE void find_top(Strip *s, const float *x, int64_t stride, int64_t length, int64_t first,
                     int few, int predict) {
    const float *from = x + first * stride;
    float *e = s->e + first * s->length;
#pragma omp simd
    for (int64_t i = 0; i < length; i++) {
        float top = s->top[i];
        int32_t arg = s->arg[i];
        for (int c = 0; c < few; c++) {
            float v = from[c * stride + i];
            e[c * s->length + i] = v;
            if (predict) arg = v > top ? (int32_t)first + c : arg;
            top = v > top ? v : top;
        }
        s->top[i] = top;
        if (predict) s->arg[i] = arg;
    }
}

/* Asks for `length` numbers of each of `few` rows: one class has too few adjacent ones for the
 * processor to see what comes next. */
INLINE void prefetch(const float *rows, int64_t stride, int64_t length, int few, int to_write) {
    for (int c = 0; c < few; c++)
        for (int64_t i = 0; i < length; i += VECTOR) PREFETCH(rows + c * stride + i, to_write);
}

/* Turns the logits of a strip into e, while those of the `next` strip are on their way. */
INLINE void exponentiate(Strip *s, const float *next, int64_t stride, int64_t length,
                         int64_t first, int few) {
    float *e = s->e + first * s->length;
    prefetch(next + first * stride, stride, length, few, 0);
#pragma omp simd
    for (int64_t i = 0; i < length; i++) {
        float sum = s->sum[i], top = s->top[i];
        for (int c = 0; c < few; c++) {
            float y = exp_of(e[c * s->length + i] - top);
            e[c * s->length + i] = y;
            sum += y;
        }
        s->sum[i] = sum;
    }
}

/* The softmax of a strip, e / sum, and where `predict`, the argmax as torch has it: the first of
 * equals, and a NaN is larger than all. */
INLINE void softmax(Strip *s, const float *x, int64_t stride, int64_t length, int64_t num_classes,
                    int predict) {
    int64_t c = 0;
    for (int64_t i = 0; i < length; i++) {
        s->top[i] = x[i];
        s->arg[i] = 0;
        s->sum[i] = 0.0f;
    }
    for (c = 0; c + FEW <= num_classes; c += FEW) find_top(s, x, stride, length, c, FEW, predict);
    for (; c < num_classes; c++) find_top(s, x, stride, length, c, 1, predict);
    for (int64_t i = 0; i < length; i++) {
        int64_t label = s->label[i] < 0 ? 0 : s->label[i];
        s->rest[i] = s->e[label * s->length + i] - s->top[i];
    }
    for (c = 0; c + FEW <= num_classes; c += FEW)
        exponentiate(s, x + s->length, stride, length, c, FEW);
    for (; c < num_classes; c++) exponentiate(s, x + s->length, stride, length, c, 1);
    for (int64_t i = 0; predict && i < length; i++)
        if (s->sum[i] != s->sum[i]) { /* a NaN, or an infinity less itself */
            s->arg[i] = 0;
            for (c = 1; c < num_classes; c++) {
                float v = x[c * stride + i], best = x[s->arg[i] * stride + i];
                if (v > best || (v != v && best == best)) s->arg[i] = (int32_t)c;
            }
        }
}

/* Four rows of classes: adds to the first, of double, the negative log-likelihood, times the weight
 * of the pixel where there is one, then the pixels, true positives and predictions. Writes the
 * negative log-likelihood to `nll` and which pixels take part to `valid`, unless these are NULL. */
KERNEL nll_forward(const Block *b, const float *weight, double *sums, float *nll, uint8_t *valid) {
    const int64_t num_classes = b->num_classes;
    int64_t *counts = (int64_t *)sums + num_classes;
    int64_t *true_positives = counts + num_classes, *predicted = true_positives + num_classes;
    Strip s;
    int64_t unknown = 0;
    ALIGNED float losses[MAX_STRIP];
    if (!allocate(&s, num_classes)) return -1;
    while (next_strip(&s, b)) {
        const int64_t n = s.n, at = s.at;
        unknown += read_labels(&s, b);
        softmax(&s, s.x, b->class_stride, n, num_classes, 1);
        for (int64_t i = 0; i < n; i++) losses[i] = log_of(s.sum[i]) - s.rest[i];
        for (int64_t i = 0; i < n; i++) {
            int32_t label = s.label[i];
            if (label < 0) continue;
            sums[label] += weight ? (double)losses[i] * weight[at + i] : losses[i];
            counts[label] += 1;
            true_positives[label] += label == s.arg[i];
            predicted[s.arg[i]] += 1;
        }
        for (int64_t i = 0; nll && i < n; i++) {
            nll[at + i] = s.label[i] < 0 ? 0.0f : losses[i];
            valid[at + i] = s.label[i] >= 0;
        }
    }
    free(s.memory);
    return unknown;
}

/* The mean of the sums, weighted, and by what `factor` it multiplies each: divided by the number of
 * pixels, or by_weights by their weight. What the weight of a class without pixels is has no part. */
EXPORTED void weighted_mean(int64_t num_classes, int64_t by_weights, const double *sums,
                            const double *weight, const int64_t *pixels, float *factor,
                            float *mean) {
    double total = 0, weighted = 0;
    for (int64_t c = 0; c < num_classes; c++)
        if (pixels[c]) {
            total += by_weights ? weight[c] * (double)pixels[c] : (double)pixels[c];
            weighted += weight[c] * sums[c];
        }
    total = total > 0 || total != total ? total : 1.0;
    for (int64_t c = 0; c < num_classes; c++)
        factor[c] = pixels[c] ? (float)(weight[c] / total) : 0.0f;
    *mean = (float)(weighted / total);
}

/* Writes factor * (softmax - one-hot) for a strip. */
INLINE void write_nll_gradient(const Strip *s, int64_t length, int64_t num_classes,
                               const float *factor, float *grad, int64_t grad_stride) {
    ALIGNED float inverse[MAX_STRIP];
    for (int64_t i = 0; i < length; i++) inverse[i] = 1.0f / s->sum[i];
    for (int64_t c = 0; c < num_classes; c++) {
        const float *e = s->e + c * s->length;
        float *restrict to = grad + c * grad_stride;
        prefetch(to + 2 * grad_stride, grad_stride, length, 1, 1);
        for (int64_t i = 0; i < length; i++)
            to[i] = factor[i] * (e[i] * inverse[i] - (s->label[i] == c ? 1.0f : 0.0f));
    }
}

/* Writes grad = factor * (softmax - one-hot), with the product of what there is of the factor of the
 * pixel's class, of the pixel itself, and of all. `grad` may be `x`. */
KERNEL nll_backward(const Block *b, const float *weight, const float *class_factor,
                    const float *scale, float *grad, int64_t grad_image_stride,
                    int64_t grad_stride) {
    const int64_t num_classes = b->num_classes;
    Strip s;
    ALIGNED float factor[MAX_STRIP];
    if (!allocate(&s, num_classes)) return -1;
    while (next_strip(&s, b)) {
        const int64_t n = s.n, at = s.at;
        read_labels(&s, b);
        softmax(&s, s.x, b->class_stride, n, num_classes, 0);
        for (int64_t i = 0; i < n; i++) {
            factor[i] = s.label[i] < 0 ? 0.0f : class_factor ? class_factor[s.label[i]] : 1.0f;
            if (scale && s.label[i] >= 0) factor[i] *= *scale;
            if (weight && s.label[i] >= 0) factor[i] *= weight[at + i]; /* else it may be NaN */
        }
        write_nll_gradient(&s, n, num_classes, factor, grad + s.image * grad_image_stride + s.start,
                           grad_stride);
    }
    free(s.memory);
    return 0;
}

/* The softmax of the adjusted logits of a strip (adjusted.py has the formula): x[j] - x[y],
 * compensated, plus adjustment[j * num_classes + y], or adjustment[j] where it is not of pairs. */
INLINE void adjusted_softmax(Strip *s, const float *x, int64_t stride, int64_t length,
                             int64_t num_classes, const float *adjustment, int64_t of_pairs,
                             float q) {
    ALIGNED float own[MAX_STRIP], top[MAX_STRIP];
    ALIGNED int32_t place[MAX_STRIP];
    const int64_t row = of_pairs ? num_classes : 1;
    for (int64_t i = 0; i < length; i++) {
        int32_t label = s->label[i] < 0 ? 0 : s->label[i];
        own[i] = x[label * stride + i];
        place[i] = of_pairs ? label : 0;
        top[i] = 0.0f; /* of the true class */
    }
    for (int64_t c = 0; c < num_classes; c++) {
        const float *from = x + c * stride, *added = adjustment + c * row;
        float *e = s->e + c * s->length;
#pragma omp simd
        for (int64_t i = 0; i < length; i++) {
            float v = from[i] - own[i];
            v += q * (v < 0.0f ? 0.0f : v);
            e[i] = v;
            top[i] = ((v > top[i]) & (added[place[i]] >= -FLT_MAX)) ? v : top[i];
        }
    }
    /* Less the largest that counts, because large logits have no digits left for the adjustment. */
    for (int64_t c = 0; c < num_classes; c++) {
        const float *added = adjustment + c * row;
        float *e = s->e + c * s->length;
        prefetch(x + c * stride + s->length, stride, length, 1, 0);
#pragma omp simd
        for (int64_t i = 0; i < length; i++) e[i] = (e[i] - top[i]) + added[place[i]];
    }
    softmax(s, s->e, s->length, length, num_classes, 0);
}

/* Adds the negative log-likelihood of the adjusted logits, times the weight of the pixel where
 * there is one, to `sum`, and the pixels to `pixels`. */
KERNEL adjusted_nll_forward(const Block *b, const float *weight, const float *adjustment,
                            int64_t of_pairs, float q, double *sum, int64_t *pixels) {
    const int64_t num_classes = b->num_classes;
    Strip s;
    int64_t unknown = 0;
    if (!allocate(&s, num_classes)) return -1;
    while (next_strip(&s, b)) {
        const int64_t n = s.n, at = s.at;
        unknown += read_labels(&s, b);
        adjusted_softmax(&s, s.x, b->class_stride, n, num_classes, adjustment, of_pairs, q);
        for (int64_t i = 0; i < n; i++) {
            if (s.label[i] < 0) continue;
            float loss = log_of(s.sum[i]) - s.rest[i];
            *sum += weight ? (double)loss * weight[at + i] : loss;
            *pixels += 1;
        }
    }
    free(s.memory);
    return unknown;
}

/* Writes the gradient of the logits, `scale` times the weight of the pixel. `grad` may be `x`. */
KERNEL adjusted_nll_backward(const Block *b, const float *weight, const float *adjustment,
                             int64_t of_pairs, float q, const float *scale, float *grad,
                             int64_t grad_image_stride, int64_t grad_stride) {
    const int64_t num_classes = b->num_classes;
    Strip s;
    ALIGNED float factor[MAX_STRIP];
    if (!allocate(&s, num_classes)) return -1;
    while (next_strip(&s, b)) {
        const int64_t n = s.n, at = s.at;
        read_labels(&s, b);
        adjusted_softmax(&s, s.x, b->class_stride, n, num_classes, adjustment, of_pairs, q);
        for (int64_t i = 0; i < n; i++)
            factor[i] = s.label[i] < 0 ? 0.0f : weight ? *scale * weight[at + i] : *scale;
        write_nll_gradient(&s, n, num_classes, factor, grad + s.image * grad_image_stride + s.start,
                           grad_stride);
    }
    free(s.memory);
    return 0;
}

/* Adds the probability of each class to `mass`, that of the true class to its `intersection`, and
 * counts the pixels of each class; those of one image `distance` after those of the one before. */
KERNEL soft_counts_forward(const Block *b, int64_t distance, double *intersection, double *mass,
                           int64_t *pixels) {
    const int64_t num_classes = b->num_classes;
    Strip s;
    int64_t unknown = 0;
    ALIGNED float inverse[MAX_STRIP];
    if (!allocate(&s, num_classes)) return -1;
    while (next_strip(&s, b)) {
        const int64_t n = s.n, shift = s.image * distance;
        unknown += read_labels(&s, b);
        softmax(&s, s.x, b->class_stride, n, num_classes, 0);
        for (int64_t i = 0; i < n; i++) inverse[i] = 1.0f / s.sum[i];
        for (int64_t c = 0; c < num_classes; c++) {
            const float *e = s.e + c * s.length;
            float total = 0.0f;
#pragma omp simd reduction(+ : total)
            for (int64_t i = 0; i < n; i++) total += s.label[i] < 0 ? 0.0f : e[i] * inverse[i];
            mass[shift + c] += total;
        }
        for (int64_t i = 0; i < n; i++) {
            int32_t label = s.label[i];
            if (label < 0) continue;
            intersection[shift + label] += s.e[label * s.length + i] * inverse[i];
            pixels[shift + label] += 1;
        }
    }
    free(s.memory);
    return unknown;
}

/* Writes the gradient of the logits from that of intersection and mass. `grad` may be `x`. */
KERNEL soft_counts_backward(const Block *b, int64_t distance, const float *grad_intersection,
                            const float *grad_mass, float *grad, int64_t grad_image_stride,
                            int64_t grad_stride) {
    const int64_t num_classes = b->num_classes;
    Strip s;
    ALIGNED float inverse[MAX_STRIP], own[MAX_STRIP], mean[MAX_STRIP];
    if (!allocate(&s, num_classes)) return -1;
    while (next_strip(&s, b)) {
        const int64_t n = s.n, shift = s.image * distance;
        read_labels(&s, b);
        softmax(&s, s.x, b->class_stride, n, num_classes, 0);
        for (int64_t i = 0; i < n; i++) {
            int64_t label = s.label[i] < 0 ? 0 : s.label[i];
            inverse[i] = 1.0f / s.sum[i];
            own[i] = grad_intersection[shift + label];
            mean[i] = 0.0f;
        }
        /* Rounded as below, for the difference of equals to be zero. */
        for (int64_t c = 0; c < num_classes; c++)
            for (int64_t i = 0; i < n; i++) {
                float g = grad_mass[shift + c] + (s.label[i] == c ? own[i] : 0.0f);
                mean[i] += s.e[c * s.length + i] * inverse[i] * g;
            }
        for (int64_t c = 0; c < num_classes; c++) {
            const float *e = s.e + c * s.length;
            float *restrict to = grad + s.image * grad_image_stride + c * grad_stride + s.start;
            prefetch(to + 2 * grad_stride, grad_stride, n, 1, 1);
            for (int64_t i = 0; i < n; i++) {
                float g = grad_mass[shift + c] + (s.label[i] == c ? own[i] : 0.0f);
                to[i] = s.label[i] < 0 ? 0.0f : e[i] * inverse[i] * (g - mean[i]);
            }
        }
    }
    free(s.memory);
    return 0;
}

/* lovasz_bins.py has the same. */
#define LOWEST ((127 - 32) << 23)
#define SHIFT 17
#define USED ((32 << 23 >> SHIFT) + 1)
#define COARSE (USED + 2) /* NaN, and what takes no part */
#define HARDEST 512

/* The bits of an error above those of the lowest one: shifted they are its coarse bin. */
INLINE int32_t bits_of_error(float error) {
    int32_t bits = (bits_of(error > 1.0f ? 1.0f : error) & 0x7fffffff) - LOWEST;
    bits = bits < 0 ? 0 : bits;
    return bits < (USED << SHIFT) ? bits : USED << SHIFT;
}

/* Its fine bin, from the `first` ones of the class. */
INLINE int32_t fine_bin(int32_t bits, const int32_t *first) {
    int32_t start = first[bits >> SHIFT];
    return (start >> 5) + ((bits & ((1 << SHIFT) - 1)) >> (start & 31));
}

/* Twice the bits of the errors of `VECTOR` pixels as of a class, and 1 where it is the label; -2
 * where the pixel takes no part. */
INLINE void keys_of(const Strip *s, int32_t c, int64_t start, const float *missed,
                    const float *inverse, int32_t *keys) {
    const float *e = s->e + c * s->length + start;
    const int32_t *label = s->label + start;
#pragma omp simd
    for (int64_t j = 0; j < VECTOR; j++) {
        const int32_t own = label[j] == c;
        const float error = own ? missed[start + j] : e[j] * inverse[start + j];
        keys[j] = label[j] < 0 ? -2 : 2 * bits_of_error(error) + own;
    }
}

/* The keys of a class, those of background from its `limit` on, and `at` which pixels of the strip;
 * returns how many. */
INLINE int32_t keys_from(const Strip *s, int32_t c, int32_t limit, const float *missed,
                         const float *inverse, int32_t *keys, int32_t *at) {
    const float *e = s->e + c * s->length;
    const float least = limit ? float_of(limit + LOWEST) : 0.0f;
    ALIGNED int32_t some[VECTOR];
    int32_t number = 0;
    for (int64_t i = 0; i < s->n; i += VECTOR) {
        int32_t reached = 0;
#pragma omp simd reduction(| : reached)
        for (int64_t j = i; j < i + VECTOR; j++) /* NaN reaches it */
            reached |= !(e[j] * inverse[j] < least) | (s->label[j] == c);
        if (!reached) continue;
        keys_of(s, c, i, missed, inverse, some);
        for (int32_t j = 0; j < VECTOR; j++) {
            keys[number] = some[j];
            if (at) at[number] = (int32_t)i + j;
            number += (some[j] >= 2 * limit) | (some[j] & 1);
        }
    }
    return number;
}

/* The error of the true class of each pixel of a strip, and 1 / sum: the sum of the others has the
 * digits of 1 - p that a subtraction loses near p = 1. Fills up the last vector. */
INLINE void errors_of_labels(Strip *s, int64_t num_classes, float *missed, float *inverse) {
    for (int64_t i = 0; i < s->n; i++) missed[i] = 0.0f;
    for (int64_t c = 0; c < num_classes; c++)
        for (int64_t i = 0; i < s->n; i++)
            missed[i] += s->label[i] == c ? 0.0f : s->e[c * s->length + i];
    for (int64_t i = 0; i < s->n; i++) {
        inverse[i] = s->label[i] < 0 ? 0.0f : 1.0f / s->sum[i];
        missed[i] *= inverse[i];
    }
    for (int64_t i = s->n; i % VECTOR; i++) {
        s->label[i] = -1;
        inverse[i] = 0.0f;
    }
}

/* Puts a key in place of the smallest of a heap. */
INLINE void keep(int32_t *heap, int32_t key) {
    int32_t at = 0, child = 1;
    for (; child < HARDEST; child = 2 * at + 1) {
        if (child + 1 < HARDEST && heap[child + 1] < heap[child]) child += 1;
        if (key <= heap[child]) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = key;
}

/* Adds how many errors lie in each of `num_bins` bins to `counts`, of pixels that are not of the
 * class, and then of those that are: in the coarse bins, or where there are `first` ones in the
 * fine bins, of background from the `limit` of the class on. Keeps the largest keys (lovasz_bins.py)
 * of the class in the heap at `row`, where that is one. */
KERNEL lovasz_forward(const Block *b, const int32_t *first, const int32_t *limit,
                      const int32_t *row, int32_t *heaps, int64_t num_bins, int32_t *counts) {
    const int32_t num_classes = (int32_t)b->num_classes;
    Strip s;
    int64_t unknown = 0;
    ALIGNED float missed[MAX_STRIP], inverse[MAX_STRIP];
    ALIGNED int32_t keys[MAX_STRIP];
    if (!allocate(&s, num_classes)) return -1;
    while (next_strip(&s, b)) {
        unknown += read_labels(&s, b);
        softmax(&s, s.x, b->class_stride, s.n, num_classes, 0);
        errors_of_labels(&s, num_classes, missed, inverse);
        for (int32_t c = 0; !first && c < num_classes; c++)
            for (int64_t i = 0; i < s.n; i += VECTOR) {
                int32_t some = 0;
                keys_of(&s, c, i, missed, inverse, keys);
#pragma omp simd reduction(| : some)
                for (int32_t j = 0; j < VECTOR; j++) {
                    some |= keys[j] >= 0;
                    keys[j] = (keys[j] < 0 ? USED + 1 : keys[j] >> (SHIFT + 1)) +
                              (keys[j] & 1) * (int32_t)num_bins;
                }
                for (int32_t j = 0; some && j < VECTOR; j++) counts[c * COARSE + keys[j]] += 1;
            }
        for (int32_t c = 0; first && c < num_classes; c++) {
            const int32_t number = keys_from(&s, c, limit[c], missed, inverse, keys, NULL);
            int32_t *heap = row[c] < 0 ? NULL : heaps + row[c] * HARDEST;
            for (int32_t k = 0; k < number; k++)
                counts[(keys[k] & 1) * num_bins + fine_bin(keys[k] >> 1, first + c * COARSE)]++;
            for (int32_t k = 0; heap && k < number; k++)
                if (keys[k] > *heap && keys[k] < 2 * (USED << SHIFT)) keep(heap, keys[k]);
        }
    }
    free(s.memory);
    return unknown;
}

/* The slope of an error among `width` that are ranked, ascending; of its bin if it is none. */
INLINE float slope_of(int32_t bits, const int32_t *ranked, int64_t width, const float *of_ranked,
                      float of_bin) {
    int64_t low = 0, size = width;
    while (size > 0) {
        const int64_t half = size / 2;
        if (ranked[low + half] < bits) {
            low += half + 1;
            size -= half + 1;
        } else {
            size = half;
        }
    }
    return low < width && ranked[low] == bits ? of_ranked[low] : of_bin;
}

/* Writes the gradient of the logits, `scale` times what follows from dL/dp in each bin: `slopes`
 * of pixels that are not of the class, 0 below its `limit`, and `size` after them of those that
 * are. Those of the `rows` of HARDEST `ranked` errors come before those of the bins. `grad` may
 * be `x`. */
KERNEL lovasz_backward(const Block *b, const int32_t *first, const int32_t *limit,
                       const int32_t *row, const int32_t *ranked, int64_t rows,
                       const float *slopes, int64_t size, const float *scale, float *grad,
                       int64_t grad_image_stride, int64_t grad_stride) {
    const int32_t num_classes = (int32_t)b->num_classes;
    Strip s;
    ALIGNED float missed[MAX_STRIP], inverse[MAX_STRIP], mean[MAX_STRIP];
    ALIGNED int32_t keys[MAX_STRIP], at[MAX_STRIP];
    if (!allocate(&s, num_classes)) return -1;
    while (next_strip(&s, b)) {
        const int64_t n = s.n;
        read_labels(&s, b);
        softmax(&s, s.x, b->class_stride, n, num_classes, 0);
        errors_of_labels(&s, num_classes, missed, inverse);
        for (int64_t i = 0; i < n; i++) mean[i] = 0.0f;
        for (int32_t c = 0; c < num_classes; c++) {
            const int32_t number = keys_from(&s, c, limit[c], missed, inverse, keys, at);
            const float *e = s.e + c * s.length;
            float *slope = s.more + c * s.length; /* classes of `grad` may evict each other */
            for (int64_t i = 0; i < n; i++) slope[i] = 0.0f;
            for (int32_t k = 0; k < number; k++) {
                const float *of = slopes + (keys[k] & 1) * size;
                slope[at[k]] = of[rows * HARDEST + fine_bin(keys[k] >> 1, first + c * COARSE)];
            }
            for (int32_t k = 0; row[c] >= 0 && k < number; k++) {
                const int64_t place = row[c] * HARDEST;
                if (keys[k] >> 1 >= ranked[place])
                    slope[at[k]] = slope_of(keys[k] >> 1, ranked + place, HARDEST,
                                            slopes + (keys[k] & 1) * size + place, slope[at[k]]);
            }
            for (int64_t i = 0; i < n; i++) mean[i] += e[i] * inverse[i] * slope[i];
        }
        for (int64_t i = 0; i < n; i++) inverse[i] *= *scale;
        for (int64_t c = 0; c < num_classes; c++) {
            const float *e = s.e + c * s.length, *slope = s.more + c * s.length;
            float *restrict to = grad + s.image * grad_image_stride + c * grad_stride + s.start;
            prefetch(to + 2 * grad_stride, grad_stride, n, 1, 1);
            for (int64_t i = 0; i < n; i++)
                to[i] = s.label[i] < 0 ? 0.0f : e[i] * inverse[i] * (slope[i] - mean[i]);
        }
    }
    free(s.memory);
    return 0;
}

/* The lower edge of a coarse bin. */
INLINE double edge(int32_t bin) {
    const float at = float_of((bin << SHIFT) + LOWEST);
    return at < 1.0f ? at : 1.0f;
}

/* The cube root of x >= 0, to a hundredth. */
INLINE double cube_root(double x) {
    uint64_t bits;
    double root;
    memcpy(&bits, &x, sizeof bits);
    bits = bits / 3 + ((uint64_t)715094163 << 32);
    memcpy(&root, &bits, sizeof root);
    return x > 0 ? root - (root - x / (root * root)) / 3 : 0;
}

/* A coarse bin that has pixels, none of them below all of the foreground. */
typedef struct {
    int32_t at, power; /* it has 2^power fine bins */
    double need[3];
    double value, square; /* what it adds to the loss, its background at most to the gradient */
} Coarse;

INLINE int64_t share_out(Coarse *bins, int64_t num, const double *factor, double num_fine) {
    int64_t total = 0;
    for (int64_t i = 0; i < num; i++) {
        const double *need = bins[i].need;
        const double share = need[0] * factor[0] + need[1] * factor[1] + need[2] * factor[2];
        const int32_t power = ((bits_of((float)(1 + share * num_fine)) >> 23) & 255) - 127;
        bins[i].power = power < SHIFT ? power : SHIFT;
        total += (int64_t)1 << bins[i].power;
    }
    return total;
}

/* The three below are lay_bins, score_bins and rank_hardest of lovasz_bins.py, which have the
 * formulas, but go from large errors to small ones and leave out what is empty. Where background of
 * small errors adds less than 1e-4 to the norm of the gradient, it has no slope and is not counted
 * again. No KERNELs: all ranks have to come to the same bins, whatever their processors. */

/* From the `counts` of the coarse bins, of background and then of foreground, the `first` fine bin
 * of each, `num_fine` in all and one for each coarse one, the `pixels` of each class, its
 * `limit`, below which background has no slope, and below which `lowest` error none is to be ranked.
 * Returns how many fine bins there are. */
EXPORTED int64_t lovasz_lay_bins(int64_t num_classes, int64_t num_fine, const int64_t *counts,
                                 int32_t *first, int64_t *pixels, int32_t *limit,
                                 int32_t *lowest) {
    static const double parts[] = {0.4, 0.5, 0.1}, scales[] = {1.0, 1.2, 1.5, 2.0};
    const int64_t *own = counts + num_classes * COARSE;
    Coarse *bins = malloc((size_t)(num_classes * COARSE) * sizeof *bins);
    double sums[3] = {0}, value = 0.0, square = 0.0, scale = 0.0;
    double spare_value = 0.0, spare_square = 0.0;
    int64_t num = 0, num_bins = 0;
    if (!bins) return -1;
    for (int64_t c = 0; c < num_classes; c++) {
        pixels[c] = 0;
        limit[c] = COARSE << SHIFT;
        lowest[c] = INT32_MAX;
        for (int32_t k = 0; k < USED; k++) pixels[c] += own[c * COARSE + k];
        double left = (double)pixels[c], all = left; /* all: the union of a bin and those below */
        for (int32_t k = USED - 1; k >= 0 && left > 0; k--) {
            const int64_t at = c * COARSE + k;
            if (!counts[at] && !own[at]) continue;
            const double b = (double)counts[at], f = (double)own[at];
            const double from = edge(k), to = edge(k + 1);
            const double width = to - from + FLT_MIN; /* that of an error of 1 is 0 */
            const double slant = (from + width / 2) * (1 - from - width / 2);
            const double high = 1 / all, low = 1 / (all + b), both = high * low;
            const double moved = slant * slant * both * (high * high + both + low * low) / 3;
            const double pairs = all + b <= HARDEST /* all of them ranked */
                ? 0 : moved * b * (f + (b > 1 ? b - 1 : 0) * left * left * both);
            Coarse *bin = bins + num++;
            bin->at = (int32_t)at;
            bin->need[0] = cube_root(pairs * (f + b));
            bin->need[1] = sqrt(pairs);
            bin->need[2] = sqrt(width * (left * b * high + f) * low);
            bin->value = to * (left * b * high + f) * low;
            value += bin->value;
            bin->square = b * left * left * to * to * high * high * high * high;
            const double least = from * (1 - to); /* how far a slope moves the logits */
            square += f * least * least * low * low;
            if (all <= HARDEST) lowest[c] = k << SHIFT;
            all += b;
            left -= f;
        }
    }
    for (int64_t i = num - 1; i >= 0; i--) { /* from small errors to large ones */
        const int64_t c = bins[i].at / COARSE;
        if (i == num - 1 || c != bins[i + 1].at / COARSE) {
            spare_value = 4e-3 * value / (double)num_classes; /* of which half a bin may be wrong */
            spare_square = 1e-8 * square / (double)num_classes;
        }
        spare_value -= bins[i].value;
        spare_square -= bins[i].square;
        const int none_spare = spare_value <= 0 || spare_square <= 0;
        const int32_t from = (bins[i].at % COARSE) << SHIFT;
        if (limit[c] > from && (none_spare || from >= lowest[c])) limit[c] = from;
        for (int p = 0; p < 3; p++) {
            bins[i].need[p] *= limit[c] <= from;
            sums[p] += bins[i].need[p];
        }
    }
    for (int p = 0; p < 3; p++) sums[p] = sums[p] > 0 ? parts[p] / sums[p] : 0;
    /* Powers of two, of which rounding down leaves bins over: as many more as there is room for. */
    for (int i = 0; i < 4; i++) {
        if (share_out(bins, num, sums, scales[i] * (double)num_fine) > num + num_fine) break;
        scale = scales[i];
    }
    num_bins = share_out(bins, num, sums, scale * (double)num_fine);
    for (int64_t at = 0; at < num_classes * COARSE; at++)
        first[at] = (int32_t)(num_bins << 5) + SHIFT;
    for (int64_t i = 0, start = 0; i < num; i++) {
        first[bins[i].at] = (int32_t)(start << 5) + SHIFT - bins[i].power;
        start += (int64_t)1 << bins[i].power;
    }
    free(bins);
    return num_bins;
}

/* From the counts of the `coarse` and of the `fine` bins and of one for what takes no part, of
 * background and then of foreground, the loss, `slopes`, zeros before, of each fine one, `size`
 * apart, and the `lowest` error of each class that is ranked. */
EXPORTED int64_t lovasz_score_bins(int64_t num_classes, int64_t num_bins, const int64_t *coarse,
                                   const int64_t *fine, const int32_t *first,
                                   const int64_t *pixels, float *value, float *slopes, int64_t size,
                                   int32_t *lowest) {
    double present = 0.0, total = 0.0;
    for (int64_t c = 0; c < num_classes; c++) present += pixels[c] > 0;
    for (int64_t c = 0; c < num_classes; c++) {
        double left = (double)pixels[c], all = left;
        lowest[c] = INT32_MAX;
        for (int32_t k = USED - 1; k >= 0 && left > 0; k--) {
            const int32_t start = first[c * COARSE + k];
            if (start >> 5 == num_bins) continue;
            const int64_t parts = (int64_t)1 << (SHIFT - (start & 31));
            const int64_t *b_of = parts > 1 ? fine + (start >> 5) : coarse + c * COARSE + k;
            const int64_t *f_of = b_of + (parts > 1 ? num_bins + 1 : num_classes * COARSE);
            const double step = (edge(k + 1) - edge(k)) / (double)parts;
            for (int64_t j = parts - 1; j >= 0; j--) {
                if (!b_of[j] && !f_of[j]) continue;
                const double b = (double)b_of[j], f = (double)f_of[j];
                const double high = 1 / all, low = 1 / (all + b);
                float *slope = slopes + (start >> 5) + j;
                /* The mean of two orders, all of the foreground before the background or behind. */
                slope[0] = (float)((left - f / 2) * high * low / present);
                slope[size] = (float)((high + low) / -2 / present);
                total += (edge(k) + step * ((double)j + 0.5)) * (left * b * high + f) * low;
                if (all + b <= HARDEST) lowest[c] = (k << SHIFT) + (int32_t)(j << (start & 31));
                all += b;
                left -= f;
            }
        }
        if (coarse[c * COARSE + USED] || coarse[(num_classes + c) * COARSE + USED])
            total = NAN;
    }
    *value = (float)(present > 0 ? total / present : total);
    return 0;
}

/* From the `keys` of the hardest pixels of some classes of `pixels`, ascending, HARDEST a row, the
 * `bits` of their errors and the `slopes`, divided by `present`, of background and, `size` after
 * them, of foreground. */
EXPORTED int64_t lovasz_rank(int64_t rows, int64_t present, const int32_t *keys,
                             const int64_t *pixels, int32_t *bits, float *slopes, int64_t size) {
    for (int64_t r = 0; r < rows; r++) {
        double left = (double)pixels[r], all = left;
        for (int64_t i = (r + 1) * HARDEST - 1, j; i >= r * HARDEST; i = j) {
            int64_t b = 0, f = 0;
            for (j = i; j >= r * HARDEST && keys[j] >> 1 == keys[i] >> 1; j--) {
                f += keys[j] & 1;
                b += !(keys[j] & 1);
                bits[j] = keys[j] >> 1;
            }
            if (keys[i] == INT32_MAX) continue; /* none */
            const double high = 1 / all, low = 1 / (all + (double)b);
            for (int64_t k = i; k > j; k--) {
                slopes[k] = (float)((left - (double)f / 2) * high * low / (double)present);
                slopes[size + k] = (float)((high + low) / -2 / (double)present);
            }
            all += (double)b;
            left -= (double)f;
        }
    }
    return 0;
}
