"""The pixel losses, and the decode-head tail of the class-weighted ones, in Triton; for cuda.py.

A program takes a strip of pixels. Its logits are a tile (classes, pixels) that lives in registers,
so that each pass reads the logits once: some classes at a time, or whole columns, all classes of a
few pixels, where what a pixel gives needs all of its softmax. ``resized`` logits are those of the
low resolution, from which a tile is made where it is needed: they stay in the cache, and the full
resolution exists nowhere. Nothing is added up by atomics: every program writes sums of its own,
which cuda.py adds in a fixed order. Distances within an image have 32 bits.

NaN and infinity mean what they mean in torch, except that a share of 0 in an infinite logit is 0.
"""

# Annotations are not postponed (PEP 563) as elsewhere: Triton's interpreter reads them.
import triton
import triton.language as tl

# An id that no label has: a strip without unknown labels has the range (NO_ID, -NO_ID).
NO_ID = tl.constexpr(2**40)
# Where a class is looked for: none, and the distance of those whose logit is NaN, which come first.
NONE = tl.constexpr(2**30)
NAN = tl.constexpr(2**29)


@triton.jit
def read_labels(target, at, inside, num_classes, ignore_index, IGNORES: tl.constexpr):
    """(label, or -1 where the pixel takes no part; the id itself; whether it means nothing)."""
    ids = tl.load(target + at, mask=inside, other=0)
    known = (ids >= 0) & (ids < num_classes)
    taken = inside & known
    unknown = inside & (known == 0)
    if IGNORES:
        taken = taken & (ids != ignore_index)
        unknown = unknown & (ids != ignore_index)
    return tl.where(taken, ids, -1).to(tl.int32), ids, unknown


@triton.jit
def load_logits(
    from_, mask, other, row_stride, column_stride, weight_y, weight_x, RESIZED: tl.constexpr
):
    """In float32: those at ``from_``, or between there and the next row and column.

    ``weight_y`` and ``weight_x`` are the weights of those, which where it is 0 may not exist.
    """
    x = tl.load(from_, mask=mask, other=other).to(tl.float32)
    if RESIZED:
        has_right, has_below = mask & (weight_x > 0), mask & (weight_y > 0)
        right = tl.load(from_ + column_stride, mask=has_right, other=0.0).to(tl.float32)
        from_ += row_stride
        below = tl.load(from_, mask=has_below, other=0.0).to(tl.float32)
        corner = tl.load(from_ + column_stride, mask=has_right & has_below, other=0.0)
        x = (1 - weight_x) * x + weight_x * right
        below = (1 - weight_x) * below + weight_x * corner.to(tl.float32)
        # What is masked may be infinite, and weigh nothing.
        x = tl.where(mask, (1 - weight_y) * x + weight_y * below, other)
    return x


@triton.jit(do_not_specialize=['width'])
def score(
    logits,
    target,
    pixel_weight,
    sums,
    counts,
    id_range,
    tops,
    scales,
    first_y,
    weights_y,
    first_x,
    weights_x,
    num_pixels,
    width,
    num_classes,
    ignore_index,
    image_stride,
    class_stride,
    row_stride,
    column_stride,
    IGNORES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    RESIZED: tl.constexpr,
    CLASSES: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """What a strip adds, and of each of its pixels the largest logit and 1 / sum exp(x - top).

    Writes for program g: sums[g, class], the negative log-likelihood times the weight of the pixel;
    counts[g, :, class], pixels, true positives and predictions; id_range[g, :], the smallest and
    the largest id that means nothing. A program is a strip of an image; pixels are those of the
    target.
    """
    # The grid has one axis: the others end at 65535.
    strips = tl.cdiv(num_pixels, PIXELS)
    program = tl.program_id(0).to(tl.int64)
    image = program // strips
    pixel = tl.program_id(0) % strips * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < num_pixels
    start = image * num_pixels
    label, ids, unknown = read_labels(
        target + start, pixel, inside, num_classes, ignore_index, IGNORES
    )
    tl.store(id_range + 2 * program, tl.min(tl.where(unknown, ids, NO_ID), 0))
    tl.store(id_range + 2 * program + 1, tl.max(tl.where(unknown, ids, -NO_ID), 0))

    logits += image * image_stride
    weight_x = tl.zeros([PIXELS], tl.float32)
    weight_y = weight_x
    if RESIZED:
        row, column = pixel // width, pixel % width
        weight_y = tl.load(weights_y + row, mask=inside, other=0.0)
        weight_x = tl.load(weights_x + column, mask=inside, other=0.0)
        at = tl.load(first_y + row, mask=inside, other=0) * row_stride
        at += tl.load(first_x + column, mask=inside, other=0) * column_stride
    else:
        at = pixel * column_stride

    top = tl.full([PIXELS], float('-inf'), tl.float32)
    shift = tl.zeros([PIXELS], tl.float32)
    total = tl.zeros([PIXELS], tl.float32)
    prediction = tl.zeros([PIXELS], tl.int32)
    for first in range(0, num_classes, CLASSES):
        classes = first + tl.arange(0, CLASSES)[:, None]
        mask = (classes < num_classes) & inside[None, :]
        x = load_logits(
            logits + (classes * class_stride + at[None, :]),
            mask,
            float('-inf'),
            row_stride,
            column_stride,
            weight_y[None, :],
            weight_x[None, :],
            RESIZED,
        )
        # The argmax as torch has it: the first of equals, and a NaN is larger than all.
        tile_top = tl.max(x, 0)
        candidates = tl.where(x == tile_top[None, :], classes, NONE)
        found = tl.min(tl.where(x == x, candidates, classes - NAN), 0)
        better = (tile_top > top) | (found < 0)
        prediction = tl.where(better & (prediction >= 0), found, prediction)
        top = tl.maximum(top, tile_top)
        # Minus infinity less itself is no number: a class that is impossible adds nothing.
        new_shift = tl.where(top == float('-inf'), 0.0, top)
        total = tl.where(total == 0, 0.0, total * tl.exp(shift - new_shift))
        total += tl.sum(tl.exp(x - new_shift[None, :]), 0)
        shift = new_shift
    prediction = tl.where(prediction < 0, prediction + NAN, prediction)
    own = load_logits(
        logits + (label * class_stride + at),
        label >= 0,
        0.0,
        row_stride,
        column_stride,
        weight_y,
        weight_x,
        RESIZED,
    )
    nll = tl.log(total) - (own - shift)
    if WEIGHTED:
        nll *= tl.load(pixel_weight + start + pixel, mask=inside, other=0.0)
    tl.store(tops + start + pixel, shift, mask=inside)
    tl.store(scales + start + pixel, 1.0 / total, mask=inside)

    sums += program * num_classes
    counts += program * 3 * num_classes
    # Three counts in one number: pixels, true positives, predictions.
    labelled_as = 1 + ((prediction == label).to(tl.int32) << 10)
    prediction = tl.where(label >= 0, prediction, -1)
    for first in range(0, num_classes, CLASSES):
        classes = first + tl.arange(0, CLASSES)
        mask = classes < num_classes
        labelled = classes[:, None] == label[None, :]
        predicted = classes[:, None] == prediction[None, :]
        tl.store(sums + classes, tl.sum(tl.where(labelled, nll[None, :], 0.0), 1), mask=mask)
        packed = tl.where(labelled, labelled_as[None, :], 0) + tl.where(predicted, 1 << 20, 0)
        packed = tl.sum(packed, 1)
        tl.store(counts + classes, packed & 0x3FF, mask=mask)
        tl.store(counts + num_classes + classes, (packed >> 10) & 0x3FF, mask=mask)
        tl.store(counts + 2 * num_classes + classes, packed >> 20, mask=mask)


@triton.jit
def differentiate(
    logits,
    target,
    pixel_weight,
    class_factor,
    tops,
    scales,
    grad,
    num_pixels,
    num_classes,
    ignore_index,
    image_stride,
    class_stride,
    column_stride,
    grad_image_stride,
    grad_class_stride,
    grad_column_stride,
    IGNORES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    CLASSES: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Writes factor * (softmax - one-hot). A program is a strip of an image."""
    strips = tl.cdiv(num_pixels, PIXELS)
    image = (tl.program_id(0) // strips).to(tl.int64)
    pixel = tl.program_id(0) % strips * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < num_pixels
    start = image * num_pixels
    label, _, _ = read_labels(target + start, pixel, inside, num_classes, ignore_index, IGNORES)
    factor = tl.load(class_factor + label, mask=label >= 0, other=0.0)
    if WEIGHTED:
        # Not of a pixel that takes no part, whose weight may be NaN.
        factor *= tl.load(pixel_weight + start + pixel, mask=label >= 0, other=0.0)
    top = tl.load(tops + start + pixel, mask=inside, other=0.0)
    scale = tl.load(scales + start + pixel, mask=inside, other=0.0)
    logits += image * image_stride
    grad += image * grad_image_stride
    for first in range(0, num_classes, CLASSES):
        classes = first + tl.arange(0, CLASSES)[:, None]
        mask = (classes < num_classes) & inside[None, :]
        from_ = logits + (classes * class_stride + pixel[None, :] * column_stride)
        x = tl.load(from_, mask=mask, other=0.0).to(tl.float32)
        p = tl.exp(x - top[None, :]) * scale[None, :]
        y = factor[None, :] * (p - (classes == label[None, :]).to(tl.float32))
        to = grad + (classes * grad_class_stride + pixel[None, :] * grad_column_stride)
        tl.store(to, y.to(grad.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=['most_columns', 'height', 'width', 'low_height', 'low_width'])
def differentiate_resized(
    logits,
    target,
    class_factor,
    tops,
    scales,
    grad,
    first_y,
    weights_y,
    first_x,
    weights_x,
    starts_y,
    stops_y,
    starts_x,
    stops_x,
    most_columns,
    height,
    width,
    low_height,
    low_width,
    num_classes,
    ignore_index,
    image_stride,
    class_stride,
    row_stride,
    column_stride,
    grad_image_stride,
    grad_class_stride,
    grad_row_stride,
    grad_column_stride,
    IGNORES: tl.constexpr,
    CLASSES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Writes to ``grad`` what the full resolution gives to the low one.

    A program is some columns of a row, for some classes of an image, all of the low resolution. It
    collects from those pixels of the target that its own logits take part in, rows starts_y to
    stops_y and columns starts_x to stops_x, and so makes the softmax of a pixel again for each of
    the four logits between which it lies.
    """
    strips, tiles = tl.cdiv(low_width, COLUMNS), tl.cdiv(num_classes, CLASSES)
    column = tl.program_id(0) % strips * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.program_id(0) // strips % low_height
    tile = tl.program_id(0) // strips // low_height
    image = (tile // tiles).to(tl.int64)
    classes = tile % tiles * CLASSES + tl.arange(0, CLASSES)
    is_class, is_column = classes < num_classes, column < low_width
    start_x = tl.load(starts_x + column, mask=is_column, other=0)
    stop_x = tl.load(stops_x + column, mask=is_column, other=0)
    logits += image * image_stride
    start = image * height * width
    target += start
    tops += start
    scales += start
    total = tl.zeros([CLASSES, COLUMNS], tl.float32)
    for y in range(tl.load(starts_y + row), tl.load(stops_y + row)):
        weight = tl.load(weights_y + y)
        first_row = tl.load(first_y + y)
        weight_y = tl.zeros([COLUMNS], tl.float32) + weight
        share_y = tl.where(first_row == row, 1 - weight, weight)
        for step in range(0, most_columns):
            x = start_x + step
            inside = x < stop_x
            mask = is_class[:, None] & inside[None, :]
            weight_x = tl.load(weights_x + x, mask=inside, other=0.0)
            first_column = tl.load(first_x + x, mask=inside, other=0)
            at = first_row * row_stride + first_column * column_stride
            at_pixel = y * width + x
            label, _, _ = read_labels(target, at_pixel, inside, num_classes, ignore_index, IGNORES)
            factor = tl.load(class_factor + label, mask=label >= 0, other=0.0)
            factor *= share_y * tl.where(first_column == column, 1 - weight_x, weight_x)
            top = tl.load(tops + at_pixel, mask=inside, other=0.0)
            scale = tl.load(scales + at_pixel, mask=inside, other=0.0)
            resized = load_logits(
                logits + (classes[:, None] * class_stride + at[None, :]),
                mask,
                0.0,
                row_stride,
                column_stride,
                weight_y[None, :],
                weight_x[None, :],
                True,
            )
            p = tl.exp(resized - top[None, :]) * scale[None, :]
            one_hot = (classes[:, None] == label[None, :]).to(tl.float32)
            total += factor[None, :] * (p - one_hot)
    grad += image * grad_image_stride + row * grad_row_stride
    to = grad + (classes[:, None] * grad_class_stride + column[None, :] * grad_column_stride)
    tl.store(to, total, mask=is_class[:, None] & is_column[None, :])


@triton.jit
def load_columns(logits, pixel, inside, num_classes, class_stride, column_stride, CLASSES):
    """In float32, (CLASSES, pixels), minus infinity where there is no class; the classes."""
    classes = tl.arange(0, CLASSES)[:, None]
    from_ = logits + (classes * class_stride + pixel[None, :] * column_stride)
    mask = (classes < num_classes) & inside[None, :]
    return tl.load(from_, mask=mask, other=float('-inf')).to(tl.float32), classes


@triton.jit
def softmax(x):
    """(softmax over the classes, largest, sum of exp(x - largest))."""
    top = tl.max(x, 0)
    e = tl.exp(x - top[None, :])
    total = tl.sum(e, 0)
    return e * (1.0 / total)[None, :], top, total


@triton.jit
def store_columns(grad, y, classes, pixel, inside, num_classes, class_stride, column_stride):
    """In the type of the gradient, where ``load_columns`` reads."""
    to = grad + (classes * class_stride + pixel[None, :] * column_stride)
    mask = (classes < num_classes) & inside[None, :]
    tl.store(to, y.to(grad.dtype.element_ty), mask=mask)


@triton.jit
def add_softmax(
    logits,
    target,
    sums,
    counts,
    id_range,
    num_pixels,
    num_classes,
    ignore_index,
    image_stride,
    class_stride,
    column_stride,
    IGNORES: tl.constexpr,
    CLASSES: tl.constexpr,
    PIXELS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """The soft counts of a strip, STEPS tiles of columns.

    Writes for program g: sums[g, 0, class], the softmax of the class added over its own pixels;
    sums[g, 1, class], over all; counts[g, class], its pixels; id_range[g, :] as ``score`` does.
    """
    strips = tl.cdiv(num_pixels, PIXELS * STEPS)
    program = tl.program_id(0).to(tl.int64)
    image = program // strips
    target += image * num_pixels
    logits += image * image_stride
    own = tl.zeros([CLASSES, PIXELS], tl.float32)
    mass = tl.zeros([CLASSES, PIXELS], tl.float32)
    pixels = tl.zeros([CLASSES, PIXELS], tl.int32)
    low = tl.full([PIXELS], NO_ID, tl.int64)
    high = tl.full([PIXELS], -NO_ID, tl.int64)
    first = tl.program_id(0) % strips * (PIXELS * STEPS)
    for step in range(0, tl.minimum(STEPS, tl.cdiv(num_pixels - first, PIXELS))):
        pixel = first + step * PIXELS + tl.arange(0, PIXELS)
        inside = pixel < num_pixels
        label, ids, unknown = read_labels(target, pixel, inside, num_classes, ignore_index, IGNORES)
        low = tl.minimum(low, tl.where(unknown, ids, NO_ID))
        high = tl.maximum(high, tl.where(unknown, ids, -NO_ID))
        x, classes = load_columns(
            logits, pixel, inside, num_classes, class_stride, column_stride, CLASSES
        )
        p, _, _ = softmax(x)
        labelled = classes == label[None, :]
        mass += tl.where(label >= 0, p, 0.0)
        own += tl.where(labelled, p, 0.0)
        pixels += labelled.to(tl.int32)
    tl.store(id_range + 2 * program, tl.min(low, 0))
    tl.store(id_range + 2 * program + 1, tl.max(high, 0))
    classes = tl.arange(0, CLASSES)
    is_class = classes < num_classes
    sums += program * 2 * num_classes
    tl.store(sums + classes, tl.sum(own, 1), mask=is_class)
    tl.store(sums + num_classes + classes, tl.sum(mass, 1), mask=is_class)
    tl.store(counts + program * num_classes + classes, tl.sum(pixels, 1), mask=is_class)


@triton.jit
def differentiate_softmax(
    logits,
    target,
    of_own,
    of_mass,
    grad,
    num_pixels,
    num_classes,
    ignore_index,
    factor_stride,
    image_stride,
    class_stride,
    column_stride,
    grad_image_stride,
    grad_class_stride,
    grad_column_stride,
    IGNORES: tl.constexpr,
    CLASSES: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Writes p (g - sum_k p_k g_k), g the gradient of p: of_mass, and of_own at the label."""
    strips = tl.cdiv(num_pixels, PIXELS)
    image = (tl.program_id(0) // strips).to(tl.int64)
    pixel = tl.program_id(0) % strips * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < num_pixels
    target += image * num_pixels
    label, _, _ = read_labels(target, pixel, inside, num_classes, ignore_index, IGNORES)
    logits += image * image_stride
    x, classes = load_columns(
        logits, pixel, inside, num_classes, class_stride, column_stride, CLASSES
    )
    p, _, _ = softmax(x)
    of_own = tl.load(of_own + image * factor_stride + label, mask=label >= 0, other=0.0)
    g = tl.load(of_mass + image * factor_stride + classes, mask=classes < num_classes, other=0.0)
    g = g + tl.where(classes == label[None, :], of_own[None, :], 0.0)
    y = tl.where(label >= 0, p * (g - tl.sum(p * g, 0)[None, :]), 0.0)
    grad += image * grad_image_stride
    store_columns(
        grad, y, classes, pixel, inside, num_classes, grad_class_stride, grad_column_stride
    )


@triton.jit
def adjusted_softmax(x, classes, label, num_classes, adjustment, label_stride, per_class, q):
    """(softmax, negative log-likelihood) of (d + q max(0, d)) + adjustment, d = x - x[label]."""
    own = tl.sum(tl.where(classes == label[None, :], x, 0.0), 0)
    x -= own[None, :]
    x += q * tl.where(x < 0, 0.0, x)
    # Less the largest that counts, because large logits have no digits left for the adjustment.
    from_ = adjustment + (classes * per_class + label[None, :] * label_stride)
    mask = (classes < num_classes) & (label >= 0)[None, :]
    added = tl.load(from_, mask=mask, other=0.0)
    top = tl.max(tl.where(added == float('-inf'), added, x), 0)
    x = (x - top[None, :]) + added
    p, top, total = softmax(x)
    own = tl.sum(tl.where(classes == label[None, :], x, 0.0), 0)
    return p, tl.log(total) - (own - top)


@triton.jit
def score_adjusted(
    logits,
    target,
    pixel_weight,
    adjustment,
    sums,
    counts,
    id_range,
    num_pixels,
    num_classes,
    ignore_index,
    label_stride,
    per_class,
    q,
    image_stride,
    class_stride,
    column_stride,
    IGNORES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    CLASSES: tl.constexpr,
    PIXELS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """The loss of a strip, STEPS tiles of columns.

    Writes for program g: sums[g], the negative log-likelihood times the weight of the pixel;
    counts[g], pixels that take part; id_range[g, :] as ``score`` does.
    """
    strips = tl.cdiv(num_pixels, PIXELS * STEPS)
    program = tl.program_id(0).to(tl.int64)
    image = program // strips
    target += image * num_pixels
    logits += image * image_stride
    total = tl.zeros([PIXELS], tl.float32)
    pixels = tl.zeros([PIXELS], tl.int32)
    low = tl.full([PIXELS], NO_ID, tl.int64)
    high = tl.full([PIXELS], -NO_ID, tl.int64)
    first = tl.program_id(0) % strips * (PIXELS * STEPS)
    for step in range(0, tl.minimum(STEPS, tl.cdiv(num_pixels - first, PIXELS))):
        pixel = first + step * PIXELS + tl.arange(0, PIXELS)
        inside = pixel < num_pixels
        label, ids, unknown = read_labels(target, pixel, inside, num_classes, ignore_index, IGNORES)
        low = tl.minimum(low, tl.where(unknown, ids, NO_ID))
        high = tl.maximum(high, tl.where(unknown, ids, -NO_ID))
        x, classes = load_columns(
            logits, pixel, inside, num_classes, class_stride, column_stride, CLASSES
        )
        _, nll = adjusted_softmax(
            x, classes, label, num_classes, adjustment, label_stride, per_class, q
        )
        if WEIGHTED:
            at = image * num_pixels + pixel
            nll *= tl.load(pixel_weight + at, mask=label >= 0, other=0.0)
        total += tl.where(label >= 0, nll, 0.0)
        pixels += (label >= 0).to(tl.int32)
    tl.store(id_range + 2 * program, tl.min(low, 0))
    tl.store(id_range + 2 * program + 1, tl.max(high, 0))
    tl.store(sums + program, tl.sum(total, 0))
    tl.store(counts + program, tl.sum(pixels, 0))


@triton.jit
def differentiate_adjusted(
    logits,
    target,
    pixel_weight,
    adjustment,
    scale,
    grad,
    num_pixels,
    num_classes,
    ignore_index,
    label_stride,
    per_class,
    q,
    image_stride,
    class_stride,
    column_stride,
    grad_image_stride,
    grad_class_stride,
    grad_column_stride,
    IGNORES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    CLASSES: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Writes scale * weight of the pixel * (softmax - one-hot)."""
    strips = tl.cdiv(num_pixels, PIXELS)
    image = (tl.program_id(0) // strips).to(tl.int64)
    pixel = tl.program_id(0) % strips * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < num_pixels
    start = image * num_pixels
    label, _, _ = read_labels(target + start, pixel, inside, num_classes, ignore_index, IGNORES)
    logits += image * image_stride
    x, classes = load_columns(
        logits, pixel, inside, num_classes, class_stride, column_stride, CLASSES
    )
    p, _ = adjusted_softmax(x, classes, label, num_classes, adjustment, label_stride, per_class, q)
    factor = tl.zeros([PIXELS], tl.float32) + tl.load(scale)
    if WEIGHTED:
        factor *= tl.load(pixel_weight + start + pixel, mask=label >= 0, other=0.0)
    y = factor[None, :] * (p - (classes == label[None, :]).to(tl.float32))
    y = tl.where(label >= 0, y, 0.0)
    grad += image * grad_image_stride
    store_columns(
        grad, y, classes, pixel, inside, num_classes, grad_class_stride, grad_column_stride
    )
